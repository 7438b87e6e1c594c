//! The user that the service runs as: nobody can sign in as it, and it owns the state folder only.

use super::{NAME, ServiceError, run};
use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;

const PASSWD: &str = "/etc/passwd";

/// User and group number of our user in the text of `/etc/passwd`.
fn ids(passwd: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(NAME))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn find() -> Result<Option<(u32, u32)>, ServiceError> {
    let path = Path::new(PASSWD);
    fs::read_to_string(path).map(|text| ids(&text)).map_err(ServiceError::io("read", path))
}

/// Makes the user, if it is not there yet.
pub(crate) fn create_user(home: &Path) -> Result<(), ServiceError> {
    if find()?.is_some() {
        return Ok(());
    }
    let home = home.to_string_lossy();
    let shell = "/usr/sbin/nologin";
    let options = ["--system", "--user-group", "--no-create-home", "--home-dir", &home];
    run("useradd", &[&options[..], &["--shell", shell, NAME]].concat())
}

/// Removes the user, if it is there.
pub(crate) fn remove_user() -> Result<(), ServiceError> {
    if find()?.is_none() { Ok(()) } else { run("userdel", &[NAME]) }
}

/// Makes a folder and all in it the user's own. Links are changed themselves, never followed.
pub(crate) fn give_to_user(folder: &Path) -> Result<(), ServiceError> {
    let (user, group) = find()?.ok_or(ServiceError::NoUser)?;
    give(folder, user, group)
}

fn give(path: &Path, user: u32, group: u32) -> Result<(), ServiceError> {
    lchown(path, Some(user), Some(group)).map_err(ServiceError::io("change the owner of", path))?;
    if !path.is_symlink() && path.is_dir() {
        let failed = || ServiceError::io("read the folder", path);
        for entry in fs::read_dir(path).map_err(failed())? {
            give(&entry.map_err(failed())?.path(), user, group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\noutrigger-agent2:x:7:7::/:\noutrigger-agent:x:998:997:Outrigger:/var/lib/outrigger-agent:/usr/sbin/nologin\n";
        assert_eq!(ids(passwd), Some((998, 997)));
        assert_eq!(ids("root:x:0:0::/root:/bin/sh\n"), None);
    }
}
