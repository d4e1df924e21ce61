//! Whatever a scene or a film is like: labels do not overlap, nothing leaves the picture, no line of
//! text is too wide, and what is written is XML.

use iommu::IovaRange;
use proptest::prelude::*;
use softvfio_draw::film::{Film, Step, Track};
use softvfio_draw::picture::{Frame, Look, Picture, Shape};
use softvfio_draw::{Again, Area, Column, Kind, Mark, MarkKind, Scene, svg, text};

fn range() -> impl Strategy<Value = IovaRange> {
    let place = prop_oneof![
        0..=u64::MAX,
        (0..64u32).prop_map(|bit| 1 << bit),
        (0..64u64).prop_map(|page| page << 12),
        Just(u64::MAX),
    ];
    let size = prop_oneof![1..=u64::MAX, (0..64u32).prop_map(|bit| 1 << bit), Just(4096)];
    (place, size)
        .prop_map(|(first, size)| IovaRange::new(first, first.saturating_add(size - 1)).unwrap())
}

fn words() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z <>&\"]{0,60}", "[a-zA-Z0-9é世\u{1}]{0,30}", Just(String::new())]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(&Kind::ALL[..])
}

fn area() -> impl Strategy<Value = Area> {
    (range(), kind(), words(), words()).prop_map(|(range, kind, name, note)| Area {
        range,
        kind,
        name,
        note,
    })
}

fn column() -> impl Strategy<Value = Column> {
    (words(), prop::collection::vec(range(), 0..3), prop::collection::vec(area(), 0..25)).prop_map(
        |(title, apertures, mut areas)| {
            areas.sort_by_key(|a| (a.range.first(), std::cmp::Reverse(a.range.last())));
            Column { title, apertures, areas }
        },
    )
}

fn mark() -> impl Strategy<Value = Mark> {
    let kinds = [MarkKind::Refused, MarkKind::Fault, MarkKind::Collision];
    let kind = prop::sample::select(kinds.to_vec());
    (kind, 1..2000u64, prop::option::of(range()), words()).prop_map(
        |(kind, request, range, text)| {
            let again = Again { times: request % 3 * 1_000_000, last: request + 5_000_000 };
            Mark { kind, request, range, text, again }
        },
    )
}

fn marks(most: usize) -> impl Strategy<Value = Vec<Mark>> {
    prop::collection::vec(mark(), 0..most)
}

prop_compose! {
    fn scene()(
        title in words(),
        subtitle in words(),
        columns in prop::collection::vec(column(), 1..3),
        marks in marks(8),
    ) -> Scene {
        Scene { title, subtitle, columns, marks }
    }
}

prop_compose! {
    fn track()(
        range in range(),
        kind in kind(),
        name in words(),
        note in words(),
        steps in prop::collection::btree_map(1..2000u64, 0.0..=1.0f64, 0..20),
        gathered in any::<bool>(),
    ) -> Track {
        let steps = steps.into_iter().map(|(request, part)| Step { request, part }).collect();
        Track { range, kind, name, note, gathered, steps }
    }
}

prop_compose! {
    fn film()(
        title in words(),
        subtitle in words(),
        requests in prop_oneof![1..40u64, 2000..2_000_000u64],
        apertures in prop::collection::vec(range(), 0..2),
        tracks in prop::collection::vec(track(), 0..30),
        marks in marks(60),
        more_marks in 0..2u64,
    ) -> Film {
        Film { title, subtitle, requests, apertures, tracks, marks, more_marks }
    }
}

fn check(picture: &Picture) -> Result<(), TestCaseError> {
    let sheet = Frame { left: 0.0, top: 0.0, right: picture.width, bottom: picture.height };
    let mut texts: Vec<(Frame, &str)> = Vec::new();
    for shape in &picture.shapes {
        let frame = shape.frame();
        let numbers = [frame.left, frame.top, frame.right, frame.bottom];
        prop_assert!(numbers.iter().all(|n| n.is_finite()), "{:?}", shape);
        prop_assert!(sheet.holds(&frame), "{:?} leaves {:?}", shape, sheet);
        if let Shape::Text { text, look, .. } = shape {
            for (other, said) in &texts {
                // Sizes of gaps stand on breaks, which nothing else is near.
                prop_assert!(!frame.overlaps(other), "{:?} {:?} on {:?}", look, text, said);
            }
            if !text.is_empty() {
                texts.push((frame, text));
            }
        }
        if let Shape::Rect { look: Look::Area(_), frame, .. } = shape {
            prop_assert!(frame.right >= frame.left && frame.bottom >= frame.top);
        }
    }
    let svg = svg::write(picture);
    // Tags are balanced, and nothing that was said breaks them.
    let mut open = Vec::new();
    for tag in svg.split('<').skip(1) {
        let (tag, rest) = tag.split_once('>').unwrap();
        prop_assert!(!rest.contains('>'), "{}", tag);
        let name = tag.split([' ', '/']).next().unwrap();
        match tag {
            _ if tag.starts_with('/') => prop_assert_eq!(open.pop(), Some(&tag[1..])),
            _ if tag.ends_with('/') => {}
            _ => open.push(name),
        }
    }
    prop_assert!(open.is_empty());
    let printable = |c: char| c == '\n' || !c.is_control();
    prop_assert!(svg.chars().all(printable));
    Ok(())
}

fn check_text(written: &str, width: usize) -> Result<(), TestCaseError> {
    for line in written.lines() {
        prop_assert!(line.chars().count() <= width.max(text::NARROWEST), "{:?}", line);
        let clean = !line.contains('\x1b') && line.trim_end() == line;
        prop_assert!(clean, "{:?}", line);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn scenes(scene in scene(), width in 0..200usize) {
        check(&svg::space(&scene))?;
        check_text(&text::scene(&scene, text::Style { width, colour: false }), width)?;
    }

    #[test]
    fn films(film in film(), width in 0..200usize) {
        check(&svg::time(&film))?;
        check_text(&text::film(&film, text::Style { width, colour: false }), width)?;
    }
}
