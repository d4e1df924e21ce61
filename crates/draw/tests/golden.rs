//! Pictures as they should be, to be looked at when they change. `UPDATE=1 cargo test -p
//! softvfio-draw --test golden` rewrites them, those of the documentation too.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use softvfio_draw::layout::Layout;
use softvfio_draw::story::{Recorder, Story};
use softvfio_draw::{Film, Scene, host, json, svg, text};
use trace::{Options, Reader, Session, Step, hosts};

const PLAIN: text::Style = text::Style { width: 100, colour: false };

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares with a file, or writes it.
fn same(path: &str, text: &str) {
    let path = root().join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        return std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let name = path.display();
    assert!(known == text, "{name} differs (UPDATE=1 rewrites it); now it is:\n{text}");
}

fn golden(name: &str, text: &str) {
    same(&format!("crates/draw/tests/golden/{name}"), text);
}

/// The story of a trace up to a request.
fn story(script: &str, at: Option<u64>) -> Story {
    let reader = Reader::new(Cursor::new(script.as_bytes()), "t");
    let mut session = Session::start(reader, &Options::default()).unwrap();
    session.watch();
    let mut recorder = Recorder::default();
    while let Some(step) = session.step().unwrap() {
        let Step::Request(outcome) = step else { continue };
        recorder.note(&outcome, &mut session);
        if Some(outcome.request) == at {
            break;
        }
    }
    recorder.finish().remove(0)
}

fn windows(name: &str) -> String {
    let path = root().join("crates/trace/tests/windows").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn machine(name: &str) -> Session<Cursor<Vec<u8>>> {
    let header = serde_json::Value::Object(hosts::header(name).unwrap()).to_string();
    let reader = Reader::new(Cursor::new(header.into_bytes()), name);
    Session::start(reader, &Options::default()).unwrap()
}

#[test]
fn hosts_as_text_and_svg() {
    let mut all = String::new();
    for (name, _) in hosts::list() {
        for scene in host::scenes(machine(name).host(), name) {
            all += &text::scene(&scene, PLAIN);
            all.push('\n');
        }
    }
    golden("hosts.txt", &all);
    let scenes = host::scenes(machine("x86-amd").host(), "x86-amd");
    golden("x86-amd.svg", &svg::write(&svg::space(&scenes[0])));
}

#[test]
fn traces_as_text() {
    let mut all = String::new();
    for name in ["kernel-abi-fixed", "guest-layout", "thread-example", "rule-05-binding"] {
        let film = Film::of(&story(&windows(&format!("{name}.jsonl")), None), name);
        all += &text::film(&film, PLAIN);
        all.push('\n');
        // Narrow and coloured.
        let style = text::Style { width: 60, colour: true };
        all += &text::film(&film, style).replace('\u{1b}', "\\e");
        all.push('\n');
    }
    golden("films.txt", &all);
    let scene = story(&windows("guest-layout.jsonl"), Some(22)).scene("guest-layout");
    golden("scene.txt", &text::scene(&scene, PLAIN));
}

/// What pictures show, as JSON.
#[test]
fn scenes_as_json() {
    let mut out = Vec::new();
    let mut writer = json::Writer::new(&mut out).unwrap();
    for scene in host::scenes(machine("x86-amd").host(), "x86-amd") {
        writer.scene(&scene).unwrap();
    }
    let guest = std::fs::read_to_string(root().join("docs/pictures/guest.json")).unwrap();
    let guest = Layout::read(&serde_json::from_str(&guest).unwrap()).unwrap();
    let mut beside = host::scenes(machine("arm-smmuv3-its").host(), "guest").remove(0);
    beside.columns.push(guest.column);
    assert!(beside.collide() > 0);
    writer.scene(&beside).unwrap();
    let story = story(&windows("guest-layout.jsonl"), None);
    writer.film(&Film::of(&story, "guest-layout"), &story).unwrap();
    writer.end().unwrap();
    let text = String::from_utf8(out).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (value["format"].as_str(), value["drawings"].as_array().unwrap().len()),
        (Some("softvfio-scene/1"), 3)
    );
    // What came and did not go is what is there in the end.
    let changes = value["drawings"][2]["changes"].as_array().unwrap();
    let all =
        |member: &str| changes.iter().map(|c| c[member].as_array().unwrap().len()).sum::<usize>();
    let there = story.lives.iter().filter(|life| life.to.is_none()).count();
    assert_eq!((all("made"), all("made") - all("removed")), (story.lives.len(), there));
    assert!(there < story.lives.len());
    golden("scenes.json", &text);
}

/// A layout may have thousands of banks; a picture of it has not.
#[test]
fn many_banks_are_gathered() {
    let banks: Vec<_> = (0..4096_u64)
        .map(|n| serde_json::json!({"first": n * 0x30_0000, "size": 0x10_0000}))
        .collect();
    let layout =
        serde_json::json!({"ram": banks, "bars": [{"first": "0x8000000000", "size": 4096}]});
    let layout = Layout::read(layout.as_object().unwrap()).unwrap();
    let mut scene = host::scenes(machine("x86-intel-39bit").host(), "many").remove(0);
    scene.columns.push(layout.column);
    // Every bank of the upper half is refused.
    let mark = |area: &softvfio_draw::Area| softvfio_draw::Mark {
        kind: softvfio_draw::MarkKind::Refused,
        request: 1,
        range: Some(area.range),
        text: "ENOSPC".into(),
        again: softvfio_draw::Again::default(),
    };
    scene.marks = scene.columns[1].areas[2048..].iter().map(mark).collect();
    let picture = svg::space(&scene);
    assert!(picture.height < 6000.0, "{}", picture.height);
    let text = text::scene(&scene, PLAIN);
    assert!(text.lines().count() < 120, "{text}");
    assert!(text.contains("and 2 025 more") && text.contains("banks of RAM"), "{text}");
}

/// A thousand mappings and more, some of which come and go.
fn many() -> String {
    let mut script = String::from(
        r#"{"built_in":"x86-amd"}
{"op":"mem","size":"0x1000"}
{"op":"open_container"}
{"op":"open_group","dev":"edu"}
{"op":"set_container"}
{"op":"set_iommu","type":"type1v2"}
"#,
    );
    for page in 0..1200u64 {
        let iova = (page % 400) * 0x3000 + (page / 400) * (1 << 32);
        script += &format!("{{\"op\":\"map\",\"iova\":{iova},\"size\":4096,\"vaddr\":\"buf\"}}\n");
        if page >= 800 {
            let old = (page - 800) * 0x3000;
            script += &format!("{{\"op\":\"unmap\",\"iova\":{old},\"size\":4096}}\n");
        }
    }
    script
}

#[test]
fn many_mappings_are_gathered() {
    let story = story(&many(), None);
    let film = Film::of(&story, "many");
    assert!(film.tracks.len() < 30, "{}", film.tracks.len());
    golden(
        "many.txt",
        &(text::film(&film, PLAIN) + "\n" + &text::scene(&story.scene("many"), PLAIN)),
    );
    golden("many.svg", &svg::write(&svg::time(&film)));
}

/// The pictures of the documentation.
#[test]
fn pictures_of_the_documentation() {
    let picture = |name: &str, text: &str| same(&format!("docs/pictures/{name}.svg"), text);
    let header = root().join("docs/pictures/guest.json");
    let guest: serde_json::Map<_, _> =
        serde_json::from_str(&std::fs::read_to_string(header).unwrap()).unwrap();
    let guest = Layout::read(&guest).unwrap();
    let session = machine("arm-smmuv3-its");
    let mut scene: Scene = host::scenes(session.host(), guest.name.as_deref().unwrap()).remove(0);
    scene.subtitle = format!("on arm-smmuv3-its: {}", scene.subtitle);
    scene.columns.push(guest.column);
    assert_eq!(scene.collide(), 1);
    picture("collision", &svg::write(&svg::space(&scene)));
    for name in ["kernel-abi-fixed", "guest-layout", "thread-example"] {
        let script = windows(&format!("{name}.jsonl"));
        picture(name, &svg::write(&svg::time(&Film::of(&story(&script, None), name))));
    }
    let scene = story(&windows("guest-layout.jsonl"), Some(22)).scene("guest-layout");
    picture("guest-layout-22", &svg::write(&svg::space(&scene)));
}
