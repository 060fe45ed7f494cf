//! Many tenants made at once.

use crate::KINDS;
use crate::office::Office;
use crate::report::Report;
use crate::single::timed;
use anyhow::{Result, bail};
use std::process::Stdio;
use std::thread;

/// Seconds for a hundred.
const BUDGET: &str = "< 10";

/// By the API, from as many connections, and by as many processes.
pub(crate) fn run(office: &Office, count: usize, report: &mut Report) -> Result<()> {
    for (kind, tier, is_shared) in KINDS {
        let all = timed(|| {
            thread::scope(|scope| {
                let making: Vec<_> = (0..count)
                    .map(|number| {
                        let id = format!("crowd-{kind}-{number}");
                        scope.spawn(move || office.post_tenant(&id, tier, is_shared))
                    })
                    .collect();
                for one in making {
                    one.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
                }
                Ok(())
            })
        })?;
        let name = format!("{count} {kind} at once, POST /api/tenants");
        report.number(&name, "s", all / 1e3, BUDGET);
    }
    for (kind, tier, is_shared) in KINDS {
        let all = timed(|| by_processes(office, count, (kind, tier, is_shared)))?;
        let name = format!("{count} {kind} at once, as many processes");
        report.number(&name, "s", all / 1e3, BUDGET);
    }
    Ok(())
}

fn by_processes(office: &Office, count: usize, kind: (&str, &str, bool)) -> Result<()> {
    let (kind, tier, is_shared) = kind;
    let mut children = Vec::new();
    for number in 0..count {
        let id = format!("processes-{kind}-{number}");
        let mut command = office.prepare(&["tenant", "create", &id, "--tier", tier, "--json"]);
        if is_shared {
            command.args(["--variant", "shared"]);
        }
        children.push(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?,
        );
    }
    let mut failed = Vec::new();
    for child in children {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            failed.push(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
    }
    if let Some(first) = failed.first() {
        bail!("{} of {count} processes failed: {first}", failed.len());
    }
    Ok(())
}
