//! Real files in real directories, looked at once or watched.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::settle::Settle;
use super::watch::DirectorySource;
use super::*;
use crate::fake::{EDIT_MAX, MEASUREMENTS_MAX};
use crate::watch::Heard;

fn config_map(name: &str, value: &str) -> String {
    format!(
        "---\n{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\"}},\"data\":{{\"k\":\"{value}\"}}}}\n"
    )
}

/// `+Kind namespace/name` for what is applied, `-…` for what is removed, sorted.
fn told(burst: &Burst) -> Vec<String> {
    let mut told: Vec<String> = burst
        .changes
        .iter()
        .map(|change| match change {
            Change::Applied(object) => format!("+{}", object.key()),
            Change::Removed(key) => format!("-{key}"),
            Change::Models { .. } => unreachable!("a directory has no engines"),
        })
        .collect();
    told.sort();
    told
}

fn reasons(burst: &Burst) -> Vec<(&str, &'static str)> {
    burst.findings.iter().map(|finding| (&*finding.origin.file, finding.reason)).collect()
}

struct Place {
    dir: TempDir,
    directory: Directory,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let directory = Directory::new(dir.path());
        Self { dir, directory }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a directory");
        fs::write(path, text).expect("written");
    }

    fn look(&mut self) -> Burst {
        self.directory.look().expect("something has changed")
    }

    /// Writes a file in place, at a time that its content shall have.
    fn write_at(&self, name: &str, text: &str, modified: SystemTime) {
        self.write(name, text);
        let file = fs::File::options().append(true).open(self.dir.path().join(name)).expect("opened");
        file.set_modified(modified).expect("set");
    }

    /// What a look at `now` tells, after this was heard at `now`; the newest content may have the time `wall`.
    fn look_after(&mut self, heard: &[Heard], now: Instant, wall: SystemTime) -> Option<Vec<String>> {
        let mut settle = Settle::default();
        for heard in heard {
            settle.hear(heard.clone(), now, files_worth_waiting_for);
        }
        self.directory.look_with(Some(&settle.begin(now, wall))).map(|burst| told(&burst))
    }
}

fn files_worth_waiting_for(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml")
}

#[test]
fn files_of_any_number_and_one_level_of_directories_are_read_and_others_are_not() {
    let mut place = Place::new();
    place.write("a.yaml", &(config_map("a", "1") + &config_map("b", "1")));
    place.write("b.yml", &config_map("c", "1"));
    place.write("c.json", config_map("d", "1").trim_start_matches("---\n"));
    place.write("below/e.yaml", &config_map("e", "1"));
    place.write("below/deeper/f.yaml", "not looked at {");
    place.write("README.md", "not looked at {");
    place.write(".hidden.yaml", "not looked at {");
    place.write(".hidden/g.yaml", "not looked at {");
    let burst = place.look();
    let names = ["a", "b", "c", "d", "e"].map(|name| format!("+ConfigMap default/{name}"));
    assert_eq!(told(&burst), names);
    assert_eq!(reasons(&burst), [("below/deeper", "NotRead")], "what is not read is said");
    assert!(place.directory.look().is_none(), "nothing has changed");
}

#[test]
fn an_edit_tells_only_what_it_changed_and_a_removed_file_takes_its_objects_along() {
    let mut place = Place::new();
    place.write("a.yaml", &(config_map("a", "1") + &config_map("b", "1")));
    place.write("c.yaml", &config_map("c", "1"));
    place.look();
    place.write("a.yaml", &(config_map("a", "1") + &config_map("b", "2")));
    assert_eq!(told(&place.look()), ["+ConfigMap default/b"]);
    place.write("a.yaml", &config_map("a", "1"));
    assert_eq!(told(&place.look()), ["-ConfigMap default/b"]);
    fs::remove_file(place.dir.path().join("c.yaml")).expect("removed");
    assert_eq!(told(&place.look()), ["-ConfigMap default/c"]);
}

#[test]
fn an_edit_of_equal_length_right_after_a_look_is_seen() {
    let mut place = Place::new();
    for round in 0..50 {
        place.write("a.yaml", &config_map("a", &format!("{round:02}")));
        assert_eq!(told(&place.look()), ["+ConfigMap default/a"], "round {round}");
    }
}

#[test]
fn a_broken_file_keeps_its_last_good_objects_and_takes_over_what_can_be_read() {
    let mut place = Place::new();
    place.write("a.yaml", &(config_map("a", "1") + &config_map("b", "1")));
    place.look();
    place.write("a.yaml", &(config_map("a", "2") + "---\n{\"kind\": \"ConfigMap\", \"metadata\": {\n"));
    let burst = place.look();
    assert_eq!(told(&burst), ["+ConfigMap default/a"], "b may be what is broken, so it stays");
    assert_eq!(burst.findings.len(), 1, "{:?}", burst.findings);
    assert_eq!(&*burst.findings[0].origin.file, "a.yaml");
    assert!(place.directory.look().is_none());
    place.write("a.yaml", &config_map("a", "2"));
    let burst = place.look();
    assert_eq!((told(&burst), reasons(&burst)), (vec!["-ConfigMap default/b".to_owned()], Vec::new()));
}

#[test]
fn a_file_that_is_broken_from_the_start_costs_only_itself() {
    let mut place = Place::new();
    place.write("a.yaml", "{{{ nonsense");
    place.write("b.yaml", &config_map("b", "1"));
    let burst = place.look();
    assert_eq!(told(&burst), ["+ConfigMap default/b"]);
    assert_eq!(burst.findings.len(), 1);
}

#[test]
fn an_emptied_file_keeps_its_last_good_objects_and_says_how_to_remove_them() {
    let mut place = Place::new();
    for empty in ["", " \n\n", "# nothing\n---\n# at all\n", "---\n"] {
        place.write("a.yaml", &(config_map("a", "1") + &config_map("b", "1")));
        place.look();
        place.write("a.yaml", empty);
        let burst = place.look();
        assert_eq!((told(&burst), reasons(&burst)), (Vec::new(), vec![("a.yaml", "EmptyFile")]), "{empty:?}");
        assert_eq!(burst.findings[0].severity, Severity::Warning);
        assert!(burst.findings[0].remedy.contains("delete the file"), "{}", burst.findings[0]);
        assert!(place.directory.look().is_none());
        place.write("a.yaml", &config_map("a", "2"));
        let burst = place.look();
        let changes = ["+ConfigMap default/a", "-ConfigMap default/b"];
        assert_eq!((told(&burst), reasons(&burst)), (changes.map(str::to_owned).to_vec(), Vec::new()));
        place.write("a.yaml", empty);
        place.look();
        fs::remove_file(place.dir.path().join("a.yaml")).expect("removed");
        let burst = place.look();
        let gone = vec!["-ConfigMap default/a".to_owned()];
        assert_eq!((told(&burst), reasons(&burst)), (gone, vec![("", "NoManifests")]));
    }
}

#[test]
fn a_file_that_never_had_objects_may_be_empty() {
    let mut place = Place::new();
    place.write("a.yaml", "# to be filled in\n");
    let burst = place.look();
    assert_eq!((told(&burst), reasons(&burst)), (Vec::new(), Vec::new()));
    place.write("a.yaml", "");
    assert!(place.directory.look().is_none());
    place.write("a.yaml", &config_map("a", "1"));
    assert_eq!(told(&place.look()), ["+ConfigMap default/a"]);
}

#[test]
fn what_moved_from_a_file_that_is_empty_now_counts_where_it_stands() {
    let mut place = Place::new();
    place.write("a.yaml", &(config_map("a", "1") + &config_map("b", "1")));
    place.look();
    place.write("a.yaml", "");
    place.write("z.yaml", &config_map("a", "2"));
    let burst = place.look();
    let expected = vec!["+ConfigMap default/a".to_owned()];
    assert_eq!((told(&burst), reasons(&burst)), (expected, vec![("a.yaml", "EmptyFile")]));
}

#[test]
fn a_young_change_that_nobody_announced_waits_for_its_events_but_not_for_ever() {
    let mut place = Place::new();
    place.write("a.yaml", &(config_map("a", "1") + &config_map("b", "1")));
    place.look();
    let path = place.dir.path().join("a.yaml");
    let (t0, wall) = (Instant::now(), SystemTime::now());
    place.write_at("a.yaml", &config_map("a", "2"), wall);
    assert_eq!(place.look_after(&[], t0, wall), None, "half of it may be missing");
    assert!(place.directory.has_unfinished());
    let other = [Heard::Changed(place.dir.path().join("other.yaml"))];
    assert_eq!(place.look_after(&other, t0, wall), None, "news of another file say nothing");
    place.write_at("a.yaml", &(config_map("a", "2") + &config_map("b", "1")), wall);
    let applied = Some(vec!["+ConfigMap default/a".to_owned()]);
    assert_eq!(place.look_after(&[Heard::Changed(path)], t0, wall), applied, "b was never gone");
    assert!(!place.directory.has_unfinished());

    place.write_at("a.yaml", &(config_map("a", "3") + &config_map("b", "1")), wall);
    assert_eq!(place.look_after(&[], t0, wall), None);
    assert_eq!(place.look_after(&[], t0 + FRESH, wall + FRESH), applied, "nobody hears of some file systems");

    // Written again before every look.
    let later = |time: Duration| (t0 + time, wall + time);
    for (waited, expected) in [(Duration::ZERO, None), (HELD_MAX - FRESH, None), (HELD_MAX, applied)] {
        let (now, wall) = later(waited);
        place.write_at("a.yaml", &(config_map("a", &format!("{now:?}")) + &config_map("b", "1")), wall);
        assert_eq!(place.look_after(&[], now, wall), expected, "after {waited:?}");
    }
}

#[test]
fn a_file_that_is_being_written_holds_up_only_itself_and_not_for_ever() {
    let mut place = Place::new();
    place.write("a.yaml", &config_map("a", "1"));
    place.look();
    let path = place.dir.path().join("a.yaml");
    let (t0, wall) = (Instant::now(), SystemTime::now() + 2 * FRESH);
    place.write("a.yaml", &config_map("other", "1"));
    place.write("b.yaml", &config_map("b", "1"));
    let writing = [Heard::Writing(path)];
    let told = place.look_after(&writing, t0, wall);
    assert_eq!(told, Some(vec!["+ConfigMap default/b".to_owned()]));
    assert_eq!(place.look_after(&writing, t0 + HELD_MAX - FRESH, wall), None);
    let all = ["+ConfigMap default/other", "-ConfigMap default/a"].map(str::to_owned).to_vec();
    assert_eq!(place.look_after(&writing, t0 + HELD_MAX, wall), Some(all));
}

#[test]
fn a_new_file_and_the_first_look_wait_for_nothing() {
    let mut place = Place::new();
    let (now, wall) = (Instant::now(), SystemTime::now());
    place.write_at("a.yaml", &config_map("a", "1"), wall);
    assert_eq!(place.look_after(&[], now, wall), Some(vec!["+ConfigMap default/a".to_owned()]));
}

#[test]
fn what_cannot_be_read_keeps_its_objects_and_says_so() {
    let mut place = Place::new();
    place.write("a.yaml", &config_map("a", "1"));
    place.look();
    let path = place.dir.path().join("a.yaml");
    fs::remove_file(&path).expect("removed");
    symlink("nowhere", &path).expect("a link");
    let burst = place.look();
    assert_eq!((told(&burst), reasons(&burst)), (Vec::new(), vec![("a.yaml", "Unreadable")]));
    fs::remove_file(&path).expect("removed");
    let burst = place.look();
    assert_eq!(
        (told(&burst), reasons(&burst)),
        (vec!["-ConfigMap default/a".to_owned()], vec![("", "NoManifests")])
    );
}

#[test]
fn a_file_above_the_limit_is_refused() {
    let mut place = Place::new();
    let file = fs::File::create(place.dir.path().join("a.yaml")).expect("created");
    file.set_len(FILE_BYTES_MAX + 1).expect("sparse");
    assert_eq!(reasons(&place.look()), [("a.yaml", "Unreadable")]);
}

#[test]
fn a_pipe_among_the_manifests_blocks_nobody() {
    let mut place = Place::new();
    let socket = place.dir.path().join("a.yaml");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    assert_eq!(reasons(&place.look()), [("a.yaml", "Unreadable")]);
}

#[test]
fn a_directory_that_disappears_keeps_everything() {
    let mut place = Place::new();
    place.write("a.yaml", &config_map("a", "1"));
    place.look();
    let elsewhere = place.dir.path().with_extension("moved");
    fs::rename(place.dir.path(), &elsewhere).expect("moved");
    let burst = place.look();
    assert_eq!((told(&burst), reasons(&burst)), (Vec::new(), vec![("", "Unreadable")]));
    fs::rename(&elsewhere, place.dir.path()).expect("moved back");
    assert_eq!(reasons(&place.look()), []);
}

#[test]
fn a_directory_below_that_cannot_be_listed_keeps_its_files() {
    let mut place = Place::new();
    place.write("below/a.yaml", &config_map("a", "1"));
    place.look();
    let below = place.dir.path().join("below");
    fs::set_permissions(&below, fs::Permissions::from_mode(0o000)).expect("changed");
    if fs::read_dir(&below).is_err() {
        assert_eq!(reasons(&place.look()), [("below", "Unreadable")]);
    } // Else: we are root, whom no mode stops.
    fs::set_permissions(&below, fs::Permissions::from_mode(0o700)).expect("changed back");
}

#[test]
fn of_two_files_with_the_same_object_the_first_by_name_counts() {
    let mut place = Place::new();
    place.write("b.yaml", &config_map("a", "from b"));
    place.write("a.yaml", &config_map("a", "from a"));
    let burst = place.look();
    assert_eq!(told(&burst), ["+ConfigMap default/a"]);
    assert_eq!(reasons(&burst), [("b.yaml", "DuplicateObject")]);
    fs::remove_file(place.dir.path().join("a.yaml")).expect("removed");
    let burst = place.look();
    assert_eq!((told(&burst), reasons(&burst)), (vec!["+ConfigMap default/a".to_owned()], Vec::new()));
}

/// What a kubelet does to a mounted `ConfigMap`: files are links into a hidden directory that is swapped by a link.
fn swap_mount(root: &Path, version: u32, files: &[(&str, String)]) {
    let data = root.join(format!("..version_{version}"));
    fs::create_dir(&data).expect("created");
    for (name, text) in files {
        fs::write(data.join(name), text).expect("written");
    }
    symlink(data.file_name().expect("a name"), root.join("..data_tmp")).expect("a link");
    fs::rename(root.join("..data_tmp"), root.join("..data")).expect("swapped");
    for (name, _) in files {
        if root.join(name).symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), root.join(name)).expect("a link");
        }
    }
    if version > 0 {
        fs::remove_dir_all(root.join(format!("..version_{}", version - 1))).expect("removed");
    }
}

/// Bursts of a watched directory. Waiting for one is bounded by the test's own patience only.
struct Watched {
    bursts: mpsc::Receiver<Burst>,
    source: DirectorySource,
}

impl Watched {
    fn start(root: &Path) -> Self {
        let (sender, bursts) = mpsc::channel(16);
        Self { bursts, source: DirectorySource::start(root.to_owned(), sender).expect("a thread") }
    }

    fn next(&mut self) -> Burst {
        self.bursts.blocking_recv().expect("the source runs")
    }

    fn stop(self) {
        self.source.stop();
    }
}

#[test]
fn a_swapped_mount_is_seen_as_one_change() {
    let place = Place::new();
    let root = place.dir.path();
    let both = |value: &str| [("a.yaml", config_map("a", value)), ("b.yaml", config_map("b", value))];
    swap_mount(root, 0, &both("0"));
    let mut watched = Watched::start(root);
    assert_eq!(told(&watched.next()), ["+ConfigMap default/a", "+ConfigMap default/b"]);
    for version in 1..20 {
        swap_mount(root, version, &both(&version.to_string()));
        assert_eq!(
            told(&watched.next()),
            ["+ConfigMap default/a", "+ConfigMap default/b"],
            "version {version}"
        );
    }
    watched.stop();
}

#[test]
fn an_edit_is_seen_long_before_the_next_poll() {
    let place = Place::new();
    place.write("a.yaml", &config_map("a", "0"));
    let mut watched = Watched::start(place.dir.path());
    watched.next();
    // Polls are a second apart.
    let mut medians = Vec::new();
    while medians.len() < MEASUREMENTS_MAX && medians.last().is_none_or(|median| *median >= EDIT_MAX) {
        let mut waits = Vec::new();
        for round in 1..=10 {
            place.write("a.yaml", &config_map("a", &format!("{}.{round}", medians.len())));
            let written = Instant::now();
            assert_eq!(told(&watched.next()), ["+ConfigMap default/a"]);
            waits.push(written.elapsed());
        }
        waits.sort();
        medians.push(waits[5]);
    }
    assert!(medians.last().is_some_and(|median| *median < EDIT_MAX), "{medians:?}");
    watched.stop();
}

#[test]
fn a_file_in_a_new_directory_and_its_later_edit_are_seen() {
    let place = Place::new();
    let mut watched = Watched::start(place.dir.path());
    assert_eq!(told(&watched.next()), [""; 0]);
    place.write("below/a.yaml", &config_map("a", "0"));
    assert_eq!(told(&watched.next()), ["+ConfigMap default/a"]);
    place.write("below/a.yaml", &config_map("a", "1"));
    assert_eq!(told(&watched.next()), ["+ConfigMap default/a"]);
    fs::remove_dir_all(place.dir.path().join("below")).expect("removed");
    assert_eq!(told(&watched.next()), ["-ConfigMap default/a"]);
    watched.stop();
}

/// A file of two objects of which the first was just written anew; it is open still.
fn half_written(place: &Place) -> (Watched, fs::File) {
    place.write("a.yaml", &(config_map("a", "0") + &config_map("b", "0")));
    let mut watched = Watched::start(place.dir.path());
    watched.next();
    let mut file = fs::File::create(place.dir.path().join("a.yaml")).expect("truncated");
    file.write_all(config_map("a", "1").as_bytes()).expect("written");
    (watched, file)
}

#[test]
fn a_file_that_is_written_slowly_is_taken_when_it_is_closed() {
    let all = ["+ConfigMap default/a", "+ConfigMap default/b", "+ConfigMap default/c"];
    let mut bursts = Vec::new();
    // What is held up for a second between the writes is another case, which the next test has: then it is tried again.
    while bursts.len() < 3 && bursts.last().is_none_or(|burst| *burst != all) {
        let place = Place::new();
        let (mut watched, mut file) = half_written(&place);
        file.flush().expect("flushed");
        // Other news must not end the wait for the open file.
        place.write("c.yaml", &config_map("c", "0"));
        file.write_all(config_map("b", "1").as_bytes()).expect("written");
        drop(file);
        bursts.push(told(&watched.next()));
        watched.stop();
    }
    assert_eq!(bursts.last().expect("a burst"), &all, "b was never gone: {bursts:?}");
}

#[test]
fn a_file_that_is_truncated_and_written_later_is_never_gone() {
    let place = Place::new();
    let (mut watched, mut file) = half_written(&place);
    place.write("c.yaml", &config_map("c", "0"));
    assert_eq!(told(&watched.next()), ["+ConfigMap default/c"], "others do not wait until it is closed");
    place.write("d.yaml", &config_map("d", "0"));
    assert_eq!(told(&watched.next()), ["+ConfigMap default/d"]);
    file.write_all(config_map("b", "1").as_bytes()).expect("written");
    drop(file);
    assert_eq!(told(&watched.next()), ["+ConfigMap default/a", "+ConfigMap default/b"]);
    watched.stop();
}

#[test]
fn a_storm_of_edits_ends_in_the_last_one() {
    let place = Place::new();
    place.write("a.yaml", &config_map("a", "0"));
    let mut watched = Watched::start(place.dir.path());
    watched.next();
    for round in 1..=500 {
        place.write("a.yaml", &config_map("a", &round.to_string()));
    }
    place.write("end.yaml", &config_map("end", "0"));
    let applied = |burst: Burst| {
        burst.changes.into_iter().filter_map(|change| match change {
            Change::Applied(object) => Some(object),
            _ => None,
        })
    };
    let expected = Directory::new(place.dir.path()).look().expect("the first look");
    let expected: Vec<Arc<Object>> = applied(expected).collect();
    // News may be lost in a storm, so the end may be seen before the last edit.
    let mut seen: BTreeMap<ObjectKey, Arc<Object>> = BTreeMap::new();
    while !expected.iter().all(|wanted| seen.get(&wanted.key()) == Some(wanted)) {
        seen.extend(applied(watched.next()).map(|object| (object.key(), object)));
    }
    watched.stop();
}

#[test]
fn stopping_ends_a_source_that_nobody_listens_to() {
    let place = Place::new();
    let (sender, bursts) = mpsc::channel(1);
    let source = DirectorySource::start(place.dir.path().to_owned(), sender).expect("a thread");
    drop(bursts);
    source.stop();
}
