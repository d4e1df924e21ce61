//! An address space over time: requests on one axis, addresses on the other.

use iommu::IovaRange;

use crate::gather::gather;
use crate::scene::{Kind, MOST_AREAS, Mark, hull};
use crate::size::{bytes, count, human};
use crate::story::{Life, Story};

/// Moments that a film tells apart.
pub const MOMENTS: u64 = 480;

/// How much of a track was in use from a moment on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The request, from 1.
    pub request: u64,
    /// The part, 0 to 1.
    pub part: f64,
}

/// A range of addresses and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Track {
    /// Where.
    pub range: IovaRange,
    /// What is there when something is.
    pub kind: Kind,
    /// What to call it.
    pub name: String,
    /// What else to say.
    pub note: String,
    /// Whether it stands for several ranges.
    pub gathered: bool,
    /// How much was in use; ascending by request.
    pub steps: Vec<Step>,
}

/// An address space over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Film {
    /// What it is.
    pub title: String,
    /// More about it.
    pub subtitle: String,
    /// How many requests there were.
    pub requests: u64,
    /// What can be translated at all.
    pub apertures: Vec<IovaRange>,
    /// What was there, the larger ones first.
    pub tracks: Vec<Track>,
    /// What went wrong.
    pub marks: Vec<Mark>,
    /// What went wrong besides.
    pub more_marks: u64,
}

impl Film {
    /// The film of a story.
    #[must_use]
    pub fn of(story: &Story, title: &str) -> Self {
        let (mut mapped, mut others): (Vec<&Life>, Vec<&Life>) =
            story.lives.iter().partition(|l| l.kind == Kind::Mapping);
        let ever = mapped.len() as u64;
        let mut tracks = tracks(story, &mut others, "regions");
        tracks.extend(self::tracks(story, &mut mapped, "mappings"));
        tracks.sort_by_key(|t| (t.range.first(), std::cmp::Reverse(t.range.last())));
        let plural = |n: u64| if n == 1 { "" } else { "s" };
        let wrong = many(&story.marks) + story.more_marks;
        let mut subtitle = format!(
            "container {}: {} request{}, {} mapping{} made",
            story.container,
            count(story.requests),
            plural(story.requests),
            count(ever),
            plural(ever),
        );
        if wrong > 0 {
            subtitle += &format!(", {} refused or faulted", count(wrong));
        }
        Self {
            title: title.to_owned(),
            subtitle,
            requests: story.requests.max(1),
            apertures: story.apertures.clone(),
            tracks,
            marks: story.marks.clone(),
            more_marks: story.more_marks,
        }
    }

    /// From the first to the last address that matters.
    #[must_use]
    pub fn span(&self) -> IovaRange {
        let tracks = self.tracks.iter().map(|t| t.range);
        let marks = self.marks.iter().filter_map(|m| m.range);
        hull(tracks.chain(self.apertures.iter().copied()).chain(marks))
    }
}

/// How much went wrong, by marks.
#[must_use]
pub fn many(marks: &[Mark]) -> u64 {
    marks.iter().map(|mark| mark.again.times.saturating_add(1)).sum()
}

/// Tracks of lives, gathered where they are too many.
fn tracks(story: &Story, lives: &mut [&Life], what: &str) -> Vec<Track> {
    lives.sort_by_key(|l| (l.range.first(), std::cmp::Reverse(l.range.last()), l.kind, l.from));
    // The same place again and again is one track.
    let mut places: Vec<IovaRange> = Vec::new();
    let mut ends: Vec<usize> = Vec::new();
    for (at, life) in lives.iter().enumerate() {
        let same = at > 0 && (lives[at - 1].range, lives[at - 1].kind) == (life.range, life.kind);
        if same {
            if let Some(end) = ends.last_mut() {
                *end = at + 1;
            }
        } else {
            places.push(life.range);
            ends.push(at + 1);
        }
    }
    let track = |cluster: crate::gather::Cluster| {
        let from = cluster.members.start.checked_sub(1).map_or(0, |before| ends[before]);
        let to = ends[cluster.members.end - 1];
        let members = &lives[from..to];
        let first = members.first()?;
        let name = story.name(first);
        let (name, note) = match (cluster.members.len(), members.len()) {
            (1, 1) => (name.to_owned(), stay(first)),
            (1, times) => (name.to_owned(), format!("{} times", count(times as u64))),
            (_, n) => {
                let n = count(n as u64);
                (format!("{n} {what}"), format!("{} of it used", human(cluster.bytes)))
            }
        };
        let steps = steps(members, bytes(cluster.range), story.requests);
        let gathered = cluster.members.len() > 1;
        Some(Track { range: cluster.range, kind: first.kind, name, note, gathered, steps })
    };
    gather(&places, MOST_AREAS).into_iter().filter_map(track).collect()
}

fn stay(life: &Life) -> String {
    match life.to {
        Some(to) => format!("requests {} to {to}", life.from),
        None => format!("from request {}", life.from),
    }
}

/// How much of `whole` bytes `lives` cover, over time.
#[expect(clippy::cast_precision_loss, reason = "a length on paper")]
fn steps(lives: &[&Life], whole: u128, requests: u64) -> Vec<Step> {
    #[derive(Default)]
    struct Moment {
        more: u128,
        less: u128,
        largest: u128,
    }
    let each = requests.div_ceil(MOMENTS).max(1);
    let moment = |request: u64| request.saturating_sub(1) / each;
    // What happened in which moment. There may be millions of lives, and few moments.
    let place = |request: u64| usize::try_from(moment(request).min(MOMENTS)).unwrap_or(0);
    let last = lives.iter().map(|l| place(l.to.unwrap_or(l.from))).max().unwrap_or(0);
    let mut moments: Vec<Option<Moment>> = (0..=last).map(|_| None).collect();
    for life in lives {
        let size = bytes(life.range);
        let made = moments[place(life.from)].get_or_insert_default();
        made.more += size;
        made.largest = made.largest.max(size);
        if let Some(to) = life.to {
            moments[place(to)].get_or_insert_default().less += size;
        }
    }
    let mut now: u128 = 0;
    let mut steps: Vec<Step> = Vec::new();
    let mut push = |moment: u64, bytes: u128| {
        let part = (bytes as f64 / whole as f64).clamp(0.0, 1.0);
        let request = moment * each + 1;
        if steps.last().is_none_or(|s| (s.part - part).abs() > 1e-9) {
            steps.push(Step { request, part });
        }
    };
    for (place, change) in moments.iter().enumerate() {
        let Some(change) = change else { continue };
        let at = place as u64;
        now = (now + change.more).saturating_sub(change.less);
        // What comes and goes within a moment is seen for that moment.
        let shown = now.max(change.largest);
        push(at, shown);
        if shown > now && moments.get(place + 1).is_none_or(Option::is_none) {
            push(at + 1, now);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(page: u64, from: u64, to: Option<u64>) -> Life {
        let range = IovaRange::sized(page << 12, 0x1000).unwrap();
        Life { range, kind: Kind::Mapping, name: 0, from, to }
    }

    fn parts(lives: &[Life], whole: u128, requests: u64) -> Vec<(u64, f64)> {
        let lives: Vec<&Life> = lives.iter().collect();
        steps(&lives, whole, requests).iter().map(|s| (s.request, s.part)).collect()
    }

    #[test]
    fn steps_follow_lives() {
        let lives = [life(0, 2, Some(5)), life(1, 3, None)];
        assert_eq!(parts(&lives, 0x2000, 9), [(2, 0.5), (3, 1.0), (5, 0.5)]);
    }

    #[test]
    fn what_comes_and_goes_within_a_moment_is_seen() {
        let lives = [life(0, 10, Some(11)), life(0, 5000, Some(5001))];
        let found = parts(&lives, 0x1000, 480_000);
        assert_eq!(found, [(1, 1.0), (1001, 0.0), (4001, 1.0), (5001, 0.0)]);
    }
}
