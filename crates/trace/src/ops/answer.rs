//! Answers, in the recording program's words and order.

use serde_json::Value;
use uapi::Errno;
use vfio::Refusal;

use crate::fields::Fields;

/// Why a system call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The errno.
    pub(crate) errno: Errno,
    /// The reason, for people.
    pub(crate) why: String,
    /// The reason, for programs, when VFIO has one.
    pub(crate) refusal: Option<Box<Refusal>>,
}

impl Failure {
    /// A failure that VFIO has no part in.
    pub(crate) fn new(errno: Errno, why: impl Into<String>) -> Self {
        Self { errno, why: why.into(), refusal: None }
    }
}

/// What a system call answers.
pub(crate) type Sys<T = i64> = Result<T, Failure>;

/// What is said of a request: `want`, and why it was refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The members of `want`.
    pub(crate) fields: Fields,
    /// The reason of a refusal, for people.
    pub(crate) why: Option<String>,
    /// The same, for programs, when VFIO refused.
    pub(crate) refusal: Option<Refusal>,
}

impl Answer {
    /// `ret` or `errno`.
    pub(crate) fn of(result: &Sys) -> Self {
        let mut fields = Fields::default();
        let (mut why, mut refusal) = (None, None);
        match result {
            Ok(ret) => fields.put("ret", Value::from(*ret)),
            Err(failure) => {
                let errno = failure.errno;
                let value = errno.name().map_or_else(|| errno.number().into(), Value::from);
                fields.put("errno", value);
                why = Some(failure.why.clone());
                refusal = failure.refusal.as_deref().cloned();
            }
        }
        Self { fields, why, refusal }
    }

    /// `ret` 0 for any success.
    pub(crate) fn done<T>(result: Sys<T>) -> Self {
        Self::of(&result.map(|_| 0))
    }

    /// `ret` 0.
    pub(crate) fn ok() -> Self {
        Self::of(&Ok(0))
    }

    /// The process was killed by a signal.
    pub(crate) fn killed(signal: &str) -> Self {
        let mut fields = Fields::default();
        fields.put("killed", Value::from(signal));
        let why = Some(format!("the process would be killed by {signal}"));
        Self { fields, why, refusal: None }
    }

    /// One more member.
    pub(crate) fn put(&mut self, name: &'static str, value: impl Into<Value>) -> &mut Self {
        self.fields.put(name, value.into());
        self
    }

    /// One more member, as `"0x..."`.
    pub(crate) fn put_hex(&mut self, name: &'static str, value: impl Into<u64>) -> &mut Self {
        self.put(name, hex(value))
    }

    /// One more member, bytes as digits.
    pub(crate) fn put_bytes(&mut self, name: &'static str, bytes: &[u8]) -> &mut Self {
        self.put(name, digits(bytes))
    }
}

/// `"0x..."`.
pub(crate) fn hex(value: impl Into<u64>) -> Value {
    Value::from(format!("{:#x}", value.into()))
}

/// Bytes as digits.
pub(crate) fn digits(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_recorded() {
        let mut a = Answer::of(&Ok(2));
        a.put_hex("size", 0x1000_u32).put_bytes("data", &[0, 0xa5]);
        assert_eq!(a.fields.to_string(), r#"{"ret":2,"size":"0x1000","data":"00a5"}"#);
        let of = |n| Answer::of(&Err(Failure::new(Errno::new(n), "no")));
        assert_eq!(of(22).fields.to_string(), r#"{"errno":"EINVAL"}"#);
        assert_eq!(of(524).fields.to_string(), r#"{"errno":524}"#);
        assert_eq!(of(22).why.as_deref(), Some("no"));
    }
}
