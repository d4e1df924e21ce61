//! The lines that traces are made of, in one pass. Whatever is not as plain as they are (escapes,
//! fractions, large numbers, many members, mistakes) is left to serde, which knows all of JSON and
//! says what is wrong.

use super::{MANY, Member, Members, Raw, Text, tag};

/// Lists and objects in each other that are read here.
const DEPTH: u32 = 6;
/// Digits of a number that is read here: none of so many overflows.
const DIGITS: usize = 18;

/// The members of the object in `text`, if it is plain.
pub(super) fn members(text: &str) -> Option<Members> {
    let mut scan = Scan { text: text.as_bytes(), at: 0 };
    let mut members = Members { list: Vec::with_capacity(8), tags: 0 };
    scan.object(|scan, key| {
        let name = key.get(text);
        let tag = tag(name);
        if members.list.len() >= MANY || members.place(text, tag, name).is_some() {
            return None;
        }
        members.push(Member { tag, key, value: scan.value(DEPTH)? });
        Some(())
    })?;
    scan.skip_space();
    (scan.at == text.len()).then_some(members)
}

struct Scan<'t> {
    text: &'t [u8],
    at: usize,
}

/// Bytes that end a string or are not as plain as they look: quotes, backslashes, control characters.
const ENDS: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        ends[byte] = true;
        byte += 1;
    }
    ends[b'"' as usize] = true;
    ends[b'\\' as usize] = true;
    ends
};

impl Scan<'_> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no space, which must be `byte`.
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        self.take(byte).then_some(())
    }

    /// Whether the next byte is `byte`; it is taken then.
    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// An object; `each` reads the value of each member.
    fn object(&mut self, mut each: impl FnMut(&mut Self, Text) -> Option<()>) -> Option<()> {
        self.expect(b'{')?;
        self.skip_space();
        if self.take(b'}') {
            return Some(());
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.expect(b':')?;
            each(self, key)?;
            self.skip_space();
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    fn value(&mut self, depth: u32) -> Option<Raw> {
        self.skip_space();
        match self.peek()? {
            b'"' => self.string().map(Raw::String),
            b'{' => {
                let depth = depth.checked_sub(1)?;
                let mut members = Vec::with_capacity(1);
                self.object(|scan, key| {
                    members.push((key, scan.value(depth)?));
                    Some(())
                })?;
                Some(Raw::Object(members))
            }
            b'[' => self.list(depth.checked_sub(1)?),
            b't' => self.word("true", Raw::Bool(true)),
            b'f' => self.word("false", Raw::Bool(false)),
            b'n' => self.word("null", Raw::Null),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: u32) -> Option<Raw> {
        self.expect(b'[')?;
        self.skip_space();
        let mut list = Vec::new();
        if self.take(b']') {
            return Some(Raw::Array(list));
        }
        loop {
            list.push(self.value(depth)?);
            self.skip_space();
            if !self.take(b',') {
                return self.expect(b']').map(|()| Raw::Array(list));
            }
        }
    }

    fn word(&mut self, word: &str, value: Raw) -> Option<Raw> {
        self.text.get(self.at..)?.starts_with(word.as_bytes()).then(|| self.at += word.len())?;
        Some(value)
    }

    /// A string without escapes.
    #[inline]
    fn string(&mut self) -> Option<Text> {
        self.take(b'"').then_some(())?;
        let rest = self.text.get(self.at..)?;
        let len = rest.iter().position(|byte| ENDS[usize::from(*byte)])?;
        let (at, len32) = (u32::try_from(self.at).ok()?, u32::try_from(len).ok()?);
        self.at += len;
        self.take(b'"').then_some(Text::Stands { at, len: len32 })
    }

    /// A number without fraction and exponent.
    fn number(&mut self) -> Option<Raw> {
        let negative = self.take(b'-');
        let start = self.at;
        let mut number = 0_i64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            if self.at - start == DIGITS {
                return None;
            }
            number = number * 10 + i64::from(digit - b'0');
            self.at += 1;
        }
        let padded = self.text.get(start) == Some(&b'0') && self.at - start > 1;
        let other = matches!(self.peek(), Some(b'.' | b'e' | b'E'));
        // Minus zero is a fraction to serde.
        if self.at == start || padded || other || (negative && number == 0) {
            return None;
        }
        Some(Raw::Number(match negative {
            true => (-number).into(),
            false => number.unsigned_abs().into(),
        }))
    }
}
