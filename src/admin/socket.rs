//! The socket of the administration: a file that only the server's own user can open.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why a path cannot be listened on. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AdminSocketError {
    /// Others could put a socket of their own in its place.
    #[error(
        "admin-socket: others may write in its folder {} (mode {mode:04o}, owner {owner}); give it a folder of its own that \
         only this user can write in", folder.display()
    )]
    SharedFolder {
        /// The folder.
        folder: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// Another process answers there.
    #[error("admin-socket: {}: another process listens there; give another path", path.display())]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("admin-socket: {}: is there already, and is no socket; give another path", path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The system refused it.
    #[error("admin-socket: {}: {source}", path.display())]
    System {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that is listened on.
#[derive(Debug)]
pub struct AdminSocket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

impl AdminSocket {
    /// Listens at a path, of which nobody but this user and root gets in. What a process that is gone left there is removed.
    ///
    /// Between the two steps that make a socket and close it to others, the process's umask does: it must forbid writing by
    /// others, for to connect is to write.
    ///
    /// # Errors
    /// When the folder is not safe, the name is taken, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, AdminSocketError> {
        let failed = |source| AdminSocketError::System {
            path: path.to_owned(),
            source,
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        check_folder(folder, &failed)?;
        remove_stale(path, &failed)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile::of(path).map_err(failed)?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// Only this user and root may put files in the folder.
fn check_folder(
    folder: &Path,
    failed: &impl Fn(io::Error) -> AdminSocketError,
) -> Result<(), AdminSocketError> {
    let metadata = std::fs::metadata(folder).map_err(failed)?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let is_ours = owner == rustix::process::geteuid().as_raw() || owner == 0;
    if is_ours && mode & 0o022 == 0 {
        return Ok(());
    }
    Err(AdminSocketError::SharedFolder {
        folder: folder.to_owned(),
        mode,
        owner,
    })
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(
    path: &Path,
    failed: &impl Fn(io::Error) -> AdminSocketError,
) -> Result<(), AdminSocketError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed)?,
    };
    let path = path.to_owned();
    if !metadata.file_type().is_socket() {
        return Err(AdminSocketError::NotASocket { path });
    }
    match UnixStream::connect(&path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(&path).map_err(failed)
        }
        Ok(_) => Err(AdminSocketError::InUse { path }),
        Err(error) => Err(failed(error)),
    }
}

/// The file of a socket, which goes when this does, unless another one has taken the name.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // What stays is found to be stale by the next process.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_file_is_for_one_user_and_goes_with_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = AdminSocket::bind(&path).unwrap();
        let second = AdminSocket::bind(&path).unwrap_err();
        assert!(
            matches!(second, AdminSocketError::InUse { .. }),
            "{second:?}"
        );
        assert!(UnixStream::connect(&path).is_ok());

        // One that took the name meanwhile is not removed with ours.
        std::fs::remove_file(&path).unwrap();
        let next = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(UnixStream::connect(&path).is_ok());
        drop(next);
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        let link = folder.path().join("link");
        symlink(&file, &link).unwrap();
        for path in [&file, &link] {
            let error = AdminSocket::bind(path).unwrap_err();
            assert!(
                matches!(error, AdminSocketError::NotASocket { .. }),
                "{error:?}"
            );
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
        let error = AdminSocket::bind(&folder.path().join("gone/admin.sock")).unwrap_err();
        assert!(
            matches!(error, AdminSocketError::System { .. }),
            "{error:?}"
        );
    }

    #[test]
    fn a_folder_that_others_may_write_in_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        for mode in [0o770, 0o702, 0o1777] {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(mode)).unwrap();
            let error = AdminSocket::bind(&path).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("(mode {mode:04o}, ")), "{text}");
            assert!(!path.exists());
        }
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        AdminSocket::bind(&path).unwrap();
    }
}
