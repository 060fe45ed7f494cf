//! Counts the allocations of the whole process, and says where they come from.

use std::fmt;

/// Frames kept of each place.
const FRAMES_MAX: usize = 60;

/// Places that are printed, and frames of each.
const PLACES_SHOWN: usize = 6;
const FRAMES_SHOWN: usize = 12;

/// What was allocated while something ran.
pub struct Profile {
    /// Allocations and reallocations.
    pub count: u64,
    places: Vec<(u64, Vec<String>)>,
}

/// Runs something and counts what every thread of the process allocates meanwhile.
pub fn allocations_of(run: impl FnOnce()) -> Profile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("heap.json");
    let profiler = dhat::Profiler::builder()
        .file_name(&path)
        .trim_backtraces(Some(FRAMES_MAX))
        .build();
    run();
    drop(profiler);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let frames = report["ftbl"].as_array().unwrap();
    let mut places: Vec<_> = report["pps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| {
            let stack = place["fs"].as_array().unwrap().iter();
            let stack = stack.map(|at| &frames[at.as_u64().unwrap() as usize]);
            let stack = stack.map(|frame| frame.as_str().unwrap().to_owned());
            (place["tbk"].as_u64().unwrap(), stack.collect())
        })
        .collect();
    places.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    Profile {
        count: places.iter().map(|(count, _)| count).sum(),
        places,
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, stack) in self.places.iter().take(PLACES_SHOWN) {
            writeln!(f, "{count} allocations at")?;
            let told = stack.iter().filter(|frame| tells_something(frame));
            for frame in told.take(FRAMES_SHOWN) {
                writeln!(f, "    {}", shortened(frame))?;
            }
        }
        Ok(())
    }
}

/// Whether a frame is of this project or of a library that it waits in.
fn tells_something(frame: &str) -> bool {
    let function = shortened(frame);
    ["pgusher", "src/", "deadpool", "tokio"]
        .iter()
        .any(|word| function.contains(word))
}

/// Function and place, without address and type parameters.
fn shortened(frame: &str) -> String {
    let frame = frame.split_once(": ").map_or(frame, |(_, rest)| rest);
    let place = frame.rfind(" (").map_or("", |at| &frame[at..]);
    let function = frame[..frame.len() - place.len()].split('<');
    let function = function.map(str::trim).find(|part| !part.is_empty());
    format!("{}{place}", function.unwrap_or_default())
}
