//! Traces with many requests: what is kept is right however many there are, and the picture of them
//! has few parts.

use std::collections::HashMap;
use std::fmt::Write;

use iommu::IovaRange;
use softvfio_draw::scene::MOST_AREAS;
use softvfio_draw::story::{Life, Recorder, Story};
use softvfio_draw::{Film, Kind, svg, text};
use trace::{Options, Reader, Session, Step};

/// Everything before the first map. The limit on mappings is raised, and root has none on memory.
const HEAD: &str = r#"{"built_in":"x86-intel","kernel":"6.12.1","module_params":{"dma_entry_limit":1048576}}
{"op":"mem","name":"ram","size":"0x400000","want":{"ret":0}}
{"op":"open_container","want":{"ret":0}}
{"op":"open_group","want":{"ret":0}}
{"op":"set_container","want":{"ret":0}}
{"op":"set_iommu","type":"type1v2","want":{"ret":0}}
"#;
/// Requests before the first map.
const BEFORE: u64 = 5;

/// The story, and how many answers were not the recorded ones.
fn story(script: &str) -> (Story, u64) {
    let reader = Reader::new(script.as_bytes(), "large");
    let mut session = Session::start(reader, &Options::default()).unwrap();
    session.watch();
    let (mut recorder, mut tally) = (Recorder::default(), trace::Tally::default());
    while let Some(step) = session.step().unwrap() {
        let Step::Request(outcome) = step else { continue };
        tally.add(&outcome);
        recorder.note(&outcome, &mut session);
    }
    let mut stories = recorder.finish();
    assert_eq!(stories.len(), 1);
    (stories.remove(0), tally.mismatches())
}

/// Maps of neighbouring pages, in order.
fn ascending(maps: u64, want: &str) -> String {
    let mut script = HEAD.to_owned();
    for page in 0..maps {
        let (iova, offset) = (page << 12, (page % 1024) << 12);
        let map =
            format!(r#"{{"op":"map","iova":"{iova:#x}","size":"0x1000","vaddr":"ram+{offset:#x}""#);
        let _ = writeln!(script, "{map}{want}}}");
    }
    script
}

#[test]
fn many_mappings_are_one_area_that_grows() {
    const MAPS: u64 = 10_000;
    let (with, mismatches) = story(&ascending(MAPS, r#","want":{"ret":0}"#));
    let (without, _) = story(&ascending(MAPS, ""));
    assert_eq!(mismatches, 0);
    assert_eq!(with.lives, without.lives);
    let film = Film::of(&with, "large");
    assert_eq!(film, Film::of(&without, "large"));
    assert_eq!(film.requests, BEFORE + MAPS);
    let mapped: Vec<_> = film.tracks.iter().filter(|t| t.kind == Kind::Mapping).collect();
    assert_eq!((mapped.len(), mapped[0].name.as_str()), (1, "10 000 mappings"));
    let steps = &mapped[0].steps;
    // About as many steps as a film tells moments apart, each higher than the one before.
    assert!((400..=480).contains(&steps.len()), "{}", steps.len());
    assert!(steps.windows(2).all(|w| w[0].part < w[1].part && w[0].request < w[1].request));
    assert!((steps[steps.len() / 2].part - 0.5).abs() < 0.01);
    assert!((steps[steps.len() - 1].part - 1.0).abs() < 1e-9);
    let style = text::Style { width: 100, colour: false };
    let shown = text::film(&film, style);
    assert!(shown.contains("10 000 mappings made"), "{shown}");
    assert!(shown.lines().count() < 30 && shown.lines().all(|l| l.chars().count() <= 100));
    assert!(svg::write(&svg::time(&film)).len() < 40_000);
}

#[test]
fn refusals_in_a_row_that_say_the_same_are_told_once() {
    const FITS: u64 = 100;
    const MAPS: u64 = 3000;
    let script = ascending(MAPS, "").replace("1048576", &FITS.to_string());
    let (story, _) = story(&script);
    let first = BEFORE + FITS + 1;
    let requests: Vec<_> = story.marks.iter().map(|m| m.request).collect();
    assert_eq!((requests, story.more_marks), (vec![first, first + 1, first + 2], 0));
    let again = story.marks[2].again;
    assert_eq!((again.times, again.last), (MAPS - FITS - 3, BEFORE + MAPS));
    let film = Film::of(&story, "refused");
    assert!(film.subtitle.ends_with("100 mappings made, 2 900 refused or faulted"), "{film:?}");
    let shown = text::film(&film, text::Style { width: 100, colour: false });
    assert!(shown.contains("requests 108 to 3005, 2 898 times: map: ENOSPC: "), "{shown}");
    assert!(!shown.contains("more refused"), "{shown}");
    assert!(shown.lines().count() < 30, "{shown}");
    // What was refused last is what a scene tells.
    assert_eq!(story.scene("refused").marks, story.marks[2..]);
}

#[test]
fn a_life_is_small() {
    // A million mappings are 48 MB.
    assert!(size_of::<Life>() <= 48);
}

/// Pseudo-random numbers, the same ones every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// What a story has to say of maps and unmaps of single pages, found out the plain way.
#[derive(Default)]
struct Model {
    script: String,
    requests: u64,
    here: HashMap<u64, usize>,
    lives: Vec<(u64, u64, Option<u64>)>,
}

impl Model {
    fn map(&mut self, page: u64) {
        self.requests += 1;
        let iova = page << 12;
        let _ = writeln!(self.script, r#"{{"op":"map","iova":{iova},"size":4096,"vaddr":"ram"}}"#);
        if !self.here.contains_key(&page) {
            self.here.insert(page, self.lives.len());
            self.lives.push((page, self.requests, None));
        }
    }

    fn unmap(&mut self, page: u64, pages: u64) {
        self.requests += 1;
        let (iova, size) = (page << 12, pages << 12);
        let _ = writeln!(self.script, r#"{{"op":"unmap","iova":{iova},"size":{size}}}"#);
        for page in page..page + pages {
            if let Some(life) = self.here.remove(&page) {
                self.lives[life].2 = Some(self.requests);
            }
        }
    }
}

#[test]
fn every_end_is_written_to_the_life_that_ended() {
    let mut numbers = Numbers(7);
    let mut model = Model { script: HEAD.to_owned(), requests: BEFORE, ..Model::default() };
    for _ in 0..12_000 {
        let page = numbers.below(600);
        match numbers.below(5) {
            0..3 => model.map(page),
            3 => model.unmap(page, 1),
            _ => model.unmap(page, 1 + numbers.below(8)),
        }
    }
    // More ends than are kept before they are written down.
    assert!(model.lives.iter().filter(|(.., to)| to.is_some()).count() > 4096);
    let (story, _) = story(&model.script);
    let told = story.lives.iter().filter(|l| l.kind == Kind::Mapping);
    let told: Vec<_> = told.map(|l| (l.range.first() >> 12, l.from, l.to)).collect();
    assert!(told == model.lives, "lives differ");
    let film = Film::of(&story, "churn");
    let mapped: Vec<_> = film.tracks.iter().filter(|t| t.kind == Kind::Mapping).collect();
    assert!(mapped.len() <= MOST_AREAS);
    let scene = story.scene("churn");
    let shown: u128 = scene.columns[1].areas.iter().map(|a| u128::from(a.range.size())).sum();
    assert!(shown >= 4096 * model.here.len() as u128);
    let last = model.here.keys().max().and_then(|page| IovaRange::sized(page << 12, 0x1000));
    assert_eq!(scene.columns[1].areas.last().map(|a| a.range.last()), last.map(|l| l.last()));
}
