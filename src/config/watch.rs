//! Tells when `proxy.toml` or a file it names may have changed.
//!
//! The directories are watched, not the files: editors replace a file by renaming another over it,
//! and Kubernetes swaps a symbolic link above it. Whatever happens in there is compared with what
//! the files looked like (identity, size, time), so that noise next to them costs one `stat`.

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// So long nothing must happen before a change is told: a file is written in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// A change is told at the latest after this, quiet or not.
const PATIENCE: Duration = Duration::from_secs(2);

/// Watches the files. The receiver gets one `()` for each burst of changes to them, and never more
/// than one in advance; dropping it ends the watch. Call again when the list of files changes.
///
/// # Errors
/// When a directory can't be watched: it does not exist, or the system's limit is reached.
///
/// # Panics
/// Outside a tokio runtime.
pub fn changes(files: Vec<PathBuf>) -> notify::Result<mpsc::Receiver<()>> {
    let (event, events) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |result: notify::Result<notify::Event>| {
        // A full channel knows already that there is something to look at.
        if result.map_or(true, |event| !matches!(event.kind, EventKind::Access(_))) {
            event.try_send(()).ok();
        }
    })?;
    // Watch first, look second: what changes in between is an event.
    for directory in directories(&files) {
        watcher.watch(&directory, RecursiveMode::NonRecursive)?;
    }
    let (change, changes) = mpsc::channel(1);
    let watch = Watch {
        seen: look(&files),
        directories: directories(&files),
        files,
        watcher,
    };
    tokio::spawn(watch.run(events, change));
    Ok(changes)
}

/// Where the files are, and where their links lead.
fn directories(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_owned),
    };
    let own = files.iter().filter_map(|file| parent(file));
    let linked = files
        .iter()
        .filter_map(|file| parent(&file.canonicalize().ok()?));
    own.chain(linked).collect()
}

/// What a file looks like from outside; `None` when it is not there.
type Look = Option<(u64, u64, u64, i64, i64)>;

fn look(files: &[PathBuf]) -> Vec<Look> {
    let one = |file: &PathBuf| -> io::Result<_> {
        let it = fs::metadata(file)?;
        Ok((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec()))
    };
    files.iter().map(|file| one(file).ok()).collect()
}

struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Look>,
    directories: BTreeSet<PathBuf>,
    watcher: RecommendedWatcher,
}

impl Watch {
    async fn run(mut self, mut events: mpsc::Receiver<()>, change: mpsc::Sender<()>) {
        loop {
            tokio::select! {
                () = change.closed() => return,
                event = events.recv() => if event.is_none() { return },
            }
            settle(&mut events).await;
            self.follow_links();
            let now = look(&self.files);
            if now != self.seen {
                self.seen = now;
                // Full: the receiver has not looked yet, and will see this change, too.
                change.try_send(()).ok();
            }
        }
    }

    /// A swapped link leads to another directory: that is watched from now on.
    fn follow_links(&mut self) {
        let now = directories(&self.files);
        for gone in self.directories.difference(&now) {
            // The system forgets a deleted directory by itself.
            drop(self.watcher.unwatch(gone));
        }
        for new in now.difference(&self.directories) {
            if let Err(error) = self.watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(directory = %new.display(), %error, "can't watch directory");
            }
        }
        self.directories = now;
    }
}

/// Waits until nothing happened for [`QUIET`], at most [`PATIENCE`].
async fn settle(events: &mut mpsc::Receiver<()>) {
    let end = Instant::now() + PATIENCE;
    loop {
        let quiet = end.min(Instant::now() + QUIET);
        match timeout_at(quiet, events.recv()).await {
            Ok(Some(())) if Instant::now() < end => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(10);

    async fn told(changes: &mut mpsc::Receiver<()>) {
        let told = timeout(DEADLINE, changes.recv()).await;
        told.expect("a change is told").expect("the watch goes on");
    }

    #[tokio::test]
    async fn a_file_written_in_place_or_renamed_over_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.toml");
        fs::write(&file, "1").unwrap();
        let mut changes = changes(vec![file.clone()]).unwrap();

        fs::write(&file, "22").unwrap();
        told(&mut changes).await;

        let new = directory.path().join("proxy.toml~");
        fs::write(&new, "333").unwrap();
        fs::rename(&new, &file).unwrap();
        told(&mut changes).await;
    }

    #[tokio::test]
    async fn a_swapped_link_above_the_file_is_told_again_and_again() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let swap = |version: &str| {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("proxy.toml"), version).unwrap();
            symlink(version, at("..data_tmp")).unwrap();
            fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        swap("..1");
        symlink("..data/proxy.toml", at("proxy.toml")).unwrap();
        let mut changes = changes(vec![at("proxy.toml")]).unwrap();
        for version in ["..2", "..3"] {
            swap(version);
            told(&mut changes).await;
        }
        fs::write(at("..3").join("proxy.toml"), "in place").unwrap();
        told(&mut changes).await;
    }

    #[tokio::test]
    async fn noise_next_to_the_file_is_not_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.toml");
        fs::write(&file, "1").unwrap();
        let mut changes = changes(vec![file.clone()]).unwrap();
        fs::write(directory.path().join("other"), "1").unwrap();
        let none = timeout(QUIET * 3, changes.recv()).await;
        assert!(none.is_err(), "{none:?}");
        fs::write(&file, "22").unwrap();
        told(&mut changes).await;
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_an_error() {
        assert!(changes(vec!["/nowhere/at/all/proxy.toml".into()]).is_err());
    }
}
