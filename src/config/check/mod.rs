//! From what is written to what is true. Goes on after an error, so that all are told at once.

mod caps;
mod cluster;
mod key;
mod login;
mod plans;
mod prices;
mod proxy;
mod registry;
mod standbys;
mod tenant;
mod usage;

use super::{
    Config,
    error::{Fault, Problem},
    location::{At, Lines},
    raw,
    units::Period,
};
use crate::tenant::Cluster;
use ipnet::IpNet;
use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads and checks the text of a file in `directory`.
///
/// # Errors
/// Every problem; a text that does not parse has one.
pub(super) fn parse(
    text: &str,
    directory: &Path,
    environment: Environment<'_>,
) -> Result<(Config, Vec<Problem>), Vec<Problem>> {
    let file: raw::File = match toml::from_str(text) {
        Ok(file) => file,
        Err(error) => return Err(vec![syntax(text, &error)]),
    };
    let mut check = Check {
        directory,
        environment,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    let config = check.file(file);
    let Check {
        mut problems,
        mut warnings,
        ..
    } = check;
    if !(problems.is_empty() && warnings.is_empty()) {
        let lines = Lines::new(text);
        let all = problems.iter_mut().chain(&mut warnings);
        all.for_each(|problem| problem.locate(&lines));
    }
    match config {
        Ok(config) if problems.is_empty() => Ok((config, warnings)),
        _ => Err(problems),
    }
}

/// A parser's error without its excerpt of the file, which may show a secret.
fn syntax(text: &str, error: &toml::de::Error) -> Problem {
    let lines = Lines::new(text);
    let (path, line) = match error.span() {
        Some(span) => (lines.path_of(&span), Some(lines.line(span.start))),
        None => Default::default(),
    };
    Problem {
        path,
        line,
        fault: Fault::Syntax(error.message().replace('\n', "; ")),
    }
}

/// A problem was noted in place of the value.
struct Noted;

type Checked<T> = Result<T, Noted>;

/// The state of checking one file.
struct Check<'a> {
    directory: &'a Path,
    environment: Environment<'a>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Check<'_> {
    fn file(&mut self, file: raw::File) -> Checked<Config> {
        let proxy = self.proxy(file.proxy);
        let admin = self.admin(file.admin);
        let registry = self.registry(&file.registry);
        let usage = self.usage(&file.usage);
        let prices = self.prices(file.prices);
        let master_key =
            self.master_key(&file.secrets, registry.as_ref().is_ok_and(Option::is_some));
        let templates = self.templates(&file.templates);
        let region = proxy
            .as_ref()
            .ok()
            .and_then(|proxy| proxy.region.as_deref());
        let mut clusters = self.clusters(&file.clusters, region);
        let by_name: HashMap<&str, &Cluster> = clusters
            .iter()
            .map(|cluster| (cluster.name.as_str(), &**cluster))
            .collect();
        let plans = self.plans(file.plans);
        let tenants = self.tenants(&by_name, (&plans, &file.defaults), file.tenants);
        self.watch_as_tenants(&mut clusters, &tenants);
        Ok(Config {
            proxy: proxy?,
            admin: admin?,
            registry: registry?,
            usage: usage?,
            prices: prices?,
            master_key: master_key?,
            templates: templates?,
            plans,
            clusters,
            tenants,
        })
    }

    /// Notes a problem.
    fn note(&mut self, at: At<'_>, fault: Fault) {
        self.problems.push(Problem::new(at, fault));
    }

    /// Notes a problem that leaves us without the value.
    fn problem<T>(&mut self, at: At<'_>, fault: Fault) -> Checked<T> {
        self.note(at, fault);
        Err(Noted)
    }

    /// A number in its bounds.
    fn number(
        &mut self,
        at: At<'_>,
        value: Option<u64>,
        default: u32,
        bounds: RangeInclusive<u32>,
    ) -> Checked<u32> {
        let Some(value) = value else {
            return Ok(default);
        };
        match u32::try_from(value) {
            Ok(number) if bounds.contains(&number) => Ok(number),
            _ => self.problem(
                at,
                Fault::Range {
                    value,
                    min: (*bounds.start()).into(),
                    max: (*bounds.end()).into(),
                },
            ),
        }
    }

    /// A time that is needed.
    fn period(
        &mut self,
        at: At<'_>,
        value: Option<Period>,
        default: Duration,
    ) -> Checked<Duration> {
        match value {
            Some(Period(time)) if time.is_zero() => self.problem(at, Fault::ZeroTime),
            Some(Period(time)) => Ok(time),
            None => Ok(default),
        }
    }

    /// A name that no other of its kind has.
    fn unique(&mut self, at: At<'_>, seen: &mut HashSet<String>, name: &str) {
        if !seen.insert(name.to_owned()) {
            let value = name.to_owned();
            self.note(at, Fault::Duplicate { value });
        }
    }

    /// Networks; a plain address is one of its own.
    fn networks(&mut self, at: At<'_>, texts: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let network = text
                .parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            if let Ok(network) = network {
                networks.push(network);
            } else {
                let value = text.clone();
                self.note(at.index(index), Fault::Network { value });
            }
        }
        networks
    }

    /// A file that can be opened, as a path from where we are.
    fn readable(&mut self, at: At<'_>, path: &Path) -> Checked<PathBuf> {
        let path = self.directory.join(path);
        match open(&path) {
            Ok(_) => Ok(path),
            Err(source) => self.problem(at, Fault::File { path, source }),
        }
    }

    /// A certificate and its key: both or none.
    fn certificate(
        &mut self,
        at: At<'_>,
        certificate: Option<&Path>,
        key: Option<&Path>,
    ) -> Checked<Option<(PathBuf, PathBuf)>> {
        match (certificate, key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                let certificate = self.readable(at.key("tls_cert"), certificate);
                let key = self.readable(at.key("tls_key"), key);
                Ok(Some((certificate?, key?)))
            }
            (Some(_), None) => self.problem(at.key("tls_cert"), Fault::Needs("tls_key")),
            (None, Some(_)) => self.problem(at.key("tls_key"), Fault::Needs("tls_cert")),
        }
    }
}

/// Opens a file, not a directory.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
}
