//! `mayfly man`: a manual page for each command.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, Failure, print};

/// The arguments of `mayfly man`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The folder to write into; it is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let failed = |path: &Path, error| Failure::operation(format!("{}: {error}", path.display()));
    fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    // Without pages for `help`, and its mirror of every command.
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut written = String::new();
    for page in pages(command) {
        let path = folder.join(page.get_filename());
        let mut text = Vec::new();
        let rendered = page.render(&mut text);
        rendered
            .and_then(|()| fs::write(&path, &text))
            .map_err(|error| failed(&path, error))?;
        written += &format!("{}\n", path.display());
    }
    print(&written)
}

/// The page of a command, and those of its subcommands.
fn pages(command: clap::Command) -> Vec<Man> {
    let subcommands: Vec<_> = command.get_subcommands().cloned().collect();
    let below = subcommands.into_iter().flat_map(pages);
    let source = concat!("mayfly ", env!("CARGO_PKG_VERSION"));
    let own = Man::new(command).source(source).manual("Mayfly");
    std::iter::once(own).chain(below).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of a command's page and of those below it, each with the flags that it must tell of.
    fn expected(command: &clap::Command, name: &str) -> Vec<(String, Vec<String>)> {
        let visible = command.get_arguments().filter(|one| !one.is_hide_set());
        let flags = visible.filter_map(|one| one.get_long().map(str::to_owned));
        let own = (format!("{name}.1"), flags.collect());
        let below = command.get_subcommands();
        let below = below.flat_map(|one| expected(one, &format!("{name}-{}", one.get_name())));
        std::iter::once(own).chain(below).collect()
    }

    #[test]
    fn every_command_has_a_page_that_tells_of_every_flag() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("man1");
        run(&Arguments {
            folder: folder.clone(),
        })
        .unwrap();

        let expected = expected(&Cli::command(), "mayfly");
        for (file, flags) in &expected {
            let text = fs::read_to_string(folder.join(file)).unwrap();
            for flag in flags {
                let flag = flag.replace('-', "\\-");
                assert!(text.contains(&flag), "{file}: --{flag}");
            }
            assert!(!text.contains("fileca"), "{file}");
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), expected.len());
    }
}
