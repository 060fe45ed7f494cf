//! Tells when `proxy.toml` or a file it names may have changed.
//!
//! It looks at the files twice a second (identity, size, time), links followed: editors replace a
//! file by renaming another over it, and Kubernetes swaps a symbolic link above it. A watch on the
//! directory would be told of everything that happens beside them, logs say, at a cost that others
//! decide.

use std::{fs, io, os::unix::fs::MetadataExt, path::PathBuf, time::Duration};
use tokio::{sync::mpsc, time::MissedTickBehavior};

/// How often it looks. A change is told when two looks in a row see the same: a file is written in
/// several steps.
const INTERVAL: Duration = Duration::from_millis(500);

/// Watches the files. The receiver gets one `()` for each burst of changes to them, and never more
/// than one in advance; dropping it ends the watch. Call again when the list of files changes.
///
/// # Errors
/// When a file's directory is not there: nothing could ever be seen.
///
/// # Panics
/// Outside a tokio runtime.
pub fn changes(files: Vec<PathBuf>) -> io::Result<mpsc::Receiver<()>> {
    for directory in files.iter().filter_map(|file| file.parent()) {
        if !directory.as_os_str().is_empty() {
            fs::metadata(directory)?;
        }
    }
    let (change, changes) = mpsc::channel(1);
    tokio::spawn(watch(files, change));
    Ok(changes)
}

async fn watch(files: Vec<PathBuf>, change: mpsc::Sender<()>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = look(&files);
    let mut last = told.clone();
    loop {
        tokio::select! {
            () = change.closed() => return,
            _ = interval.tick() => {}
        }
        let now = look(&files);
        if now == last && now != told {
            told.clone_from(&now);
            // Full: the receiver has not looked yet, and will see this change, too.
            change.try_send(()).ok();
        }
        last = now;
    }
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
        let none = timeout(INTERVAL * 3, changes.recv()).await;
        assert!(none.is_err(), "{none:?}");
        fs::write(&file, "22").unwrap();
        told(&mut changes).await;
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_an_error() {
        assert!(changes(vec!["/nowhere/at/all/proxy.toml".into()]).is_err());
    }
}
