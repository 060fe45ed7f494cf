//! As whom the PostgreSQL servers run: they refuse root.

use anyhow::{Context as _, bail};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Stdio,
};
use tokio::process::Command;

/// The account that owns the data directories and runs the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// Whoever runs the demo.
    Own,
    /// Somebody else, because the demo runs as root.
    Other {
        /// For messages.
        name: String,
        uid: u32,
        gid: u32,
    },
}

impl Account {
    /// Ourselves, or when we are root: `postgres`, else `nobody`.
    pub(super) async fn choose() -> anyhow::Result<Self> {
        let id = Command::new("id").arg("-u").output().await;
        let id = id.context("can't run id -u")?;
        if id.stdout.trim_ascii() != b"0" {
            return Ok(Self::Own);
        }
        let passwd = fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| find(&passwd, name))
            .context("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
    }

    /// Makes the command run as this account, in a process group of its own.
    pub(super) fn apply(&self, command: &mut Command) {
        command.process_group(0);
        if let Self::Other { uid, gid, .. } = *self {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives a file or folder to this account.
    pub(super) fn give(&self, path: &Path) -> anyhow::Result<()> {
        if let Self::Other { name, uid, gid } = self {
            chown(path, Some(*uid), Some(*gid))
                .with_context(|| format!("can't give {} to user {name}", path.display()))?;
        }
        Ok(())
    }

    /// Makes an empty folder that only this account may enter.
    pub(super) fn make_private_dir(&self, path: &Path) -> anyhow::Result<()> {
        fs::create_dir(path).with_context(|| format!("can't create {}", path.display()))?;
        fs::set_permissions(path, Permissions::from_mode(0o700))?;
        self.give(path)
    }

    /// Fails when this account can't enter the folder.
    pub(super) async fn can_enter(&self, dir: &Path) -> anyhow::Result<()> {
        let Self::Other { name, .. } = self else {
            return Ok(());
        };
        let mut command = Command::new("sh");
        command.args(["-c", "cd -- \"$1\"", "sh"]).arg(dir);
        command.stdin(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut command);
        if !command.status().await.context("can't run sh")?.success() {
            bail!(
                "PostgreSQL runs as user {name}, who can't enter {}; choose another --dir",
                dir.display()
            );
        }
        Ok(())
    }
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut fields = line.split(':').skip(1);
    Some(Account::Other {
        name: name.to_owned(),
        uid: fields.next()?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "postgresx:x:1:2:::\npostgres:x:101:104:admin:/var:/bin/sh\n";
        let expected = Account::Other {
            name: "postgres".into(),
            uid: 101,
            gid: 104,
        };
        assert_eq!(find(passwd, "postgres"), Some(expected));
        assert_eq!(find(passwd, "nobody"), None);
    }
}
