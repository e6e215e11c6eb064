//! The texts that an identity configuration is made of: one file, or all files of a folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much all files may have together, in octets.
pub const MAX_OCTETS: u64 = 4 * 1024 * 1024;

/// A text with the name that findings call it by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// The path of a file.
    pub name: Arc<str>,
    /// YAML or JSON.
    pub text: String,
    /// The folder in which it was read, where the files are that it names. A text from anywhere can name none.
    pub folder: Option<PathBuf>,
}

impl Source {
    /// A text from anywhere.
    #[must_use]
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            folder: None,
        }
    }

    /// Reads a file that this one names.
    ///
    /// # Errors
    /// As for [`read`].
    pub(super) fn read_named(&self, name: &str) -> Result<String, SourceError> {
        let path = self.path_of(name).ok_or_else(|| SourceError {
            path: PathBuf::from(name),
            why: "files are read only for a configuration that is itself in a file".to_owned(),
        })?;
        Ok(read_file(&path, MAX_OCTETS)?.text)
    }

    /// The path of a file that this one names, from its own folder on.
    pub(super) fn path_of(&self, name: &str) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(name))
    }
}

/// Files that cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct SourceError {
    path: PathBuf,
    why: String,
}

/// Reads a file, or the `.yaml`, `.yml` and `.json` files of a folder, in the octet order of their names. Names that begin
/// with a dot are left out: they are what Kubernetes and editors keep beside the files.
///
/// # Errors
/// When there is no file, one is not a regular file, is not UTF-8, or changes while it is read, or all of them have more than
/// [`MAX_OCTETS`].
pub fn read(path: &Path) -> Result<Vec<Source>, SourceError> {
    let at = |path: &Path, why: String| SourceError {
        path: path.to_owned(),
        why,
    };
    let failed = |path: &Path, error: &io::Error| at(path, explain(error));
    let metadata = fs::metadata(path).map_err(|error| failed(path, &error))?;
    if !metadata.is_dir() {
        return Ok(vec![read_file(path, MAX_OCTETS)?]);
    }
    // Kubernetes swaps the whole folder by one symbolic link: all files are read by way of where it points now.
    let folder = fs::canonicalize(path.join("..data")).unwrap_or_else(|_| path.to_owned());
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|error| failed(path, &error))? {
        let name = entry.map_err(|error| failed(path, &error))?.file_name();
        let name = name.into_string().map_err(|name| {
            let name = name.to_string_lossy().into_owned();
            at(&path.join(name), "its name is not UTF-8".to_owned())
        })?;
        let is_source = [".yaml", ".yml", ".json"]
            .iter()
            .any(|ending| name.ends_with(ending));
        if is_source && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    if names.is_empty() {
        return Err(at(
            path,
            "the folder has no file whose name ends in .yaml, .yml or .json".to_owned(),
        ));
    }
    let mut left = MAX_OCTETS;
    let mut sources = Vec::with_capacity(names.len());
    for name in names {
        let mut source = read_file(&folder.join(&name), left)?;
        left -= u64::try_from(source.text.len()).unwrap_or(left).min(left);
        source.name = path.join(&name).display().to_string().into();
        sources.push(source);
    }
    Ok(sources)
}

/// Reads a regular file of at most `limit` octets, unless it changes meanwhile.
fn read_file(path: &Path, limit: u64) -> Result<Source, SourceError> {
    let at = |why: String| SourceError {
        path: path.to_owned(),
        why,
    };
    let failed = |error: io::Error| at(explain(&error));
    // Opening a pipe would wait for somebody who writes into it.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(at("it is not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    let mut octets = Vec::new();
    (&file)
        .take(limit + 1)
        .read_to_end(&mut octets)
        .map_err(failed)?;
    if u64::try_from(octets.len()).unwrap_or(u64::MAX) > limit {
        return Err(at(format!(
            "the configuration is larger than {} MiB",
            MAX_OCTETS >> 20
        )));
    }
    let after = file.metadata().map_err(failed)?;
    if before.len() != after.len() || before.modified().ok() != after.modified().ok() {
        return Err(at("it changed while it was read".to_owned()));
    }
    let text = String::from_utf8(octets).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid);
        let line = line.filter(|octet| **octet == b'\n').count() + 1;
        at(format!("line {line} is not UTF-8"))
    })?;
    Ok(Source {
        folder: Some(path.parent().unwrap_or(path).to_owned()),
        ..Source::new(&path.display().to_string(), text)
    })
}

fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "there is no such file".to_owned()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "it may not be read by this user".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names_and_texts(path: &Path) -> Vec<(String, String)> {
        let sources = read(path).unwrap().into_iter();
        let named = |source: Source| {
            let name = source.name.rsplit('/').next().unwrap().to_owned();
            (name, source.text)
        };
        sources.map(named).collect()
    }

    #[test]
    fn files_of_a_folder_are_read_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("20-b.yaml", "b"),
            ("10-a.yml", "a"),
            ("3.json", "c"),
            (".hidden.yaml", "x"),
            ("notes.txt", "x"),
            ("old.yaml~", "x"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let expected = [("10-a.yml", "a"), ("20-b.yaml", "b"), ("3.json", "c")];
        let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(names_and_texts(folder.path()), expected);
    }

    #[test]
    fn a_swapped_folder_is_read_as_it_stands_behind_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (version, text) in [("..v1", "old"), ("..v2", "new")] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("a.yaml"), text).unwrap();
        }
        symlink("..data/a.yaml", path("a.yaml")).unwrap();
        for (version, text) in [("..v1", "old"), ("..v2", "new")] {
            symlink(version, path("..tmp")).unwrap();
            fs::rename(path("..tmp"), path("..data")).unwrap();
            assert_eq!(
                names_and_texts(folder.path()),
                [("a.yaml".to_owned(), text.to_owned())]
            );
        }
    }

    #[test]
    fn what_is_not_a_readable_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("empty")).unwrap();
        fs::create_dir_all(path("nested/x.yaml")).unwrap();
        fs::write(path("latin1.yaml"), b"a: b\n# \xe4\n").unwrap();
        fs::write(path("long.yaml"), vec![b' '; 4 * 1024 * 1024 + 1]).unwrap();
        fs::create_dir(path("long")).unwrap();
        for name in ["a.yaml", "b.yaml"] {
            fs::write(path("long").join(name), vec![b' '; 3 * 1024 * 1024]).unwrap();
        }
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), 0o600.into()).unwrap();
        for (name, why) in [
            ("none.yaml", "there is no such file"),
            ("empty", "the folder has no file"),
            ("nested", "it is not a regular file"),
            ("pipe", "it is not a regular file"),
            ("latin1.yaml", "line 2 is not UTF-8"),
            ("long.yaml", "larger than 4 MiB"),
            ("long", "larger than 4 MiB"),
        ] {
            let error = read(&path(name)).unwrap_err().to_string();
            assert!(
                error.contains(why) && error.contains(name),
                "{name}: {error}"
            );
        }
    }
}
