//! `mayfly completions`: what a shell completes of our commands and flags.

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Failure, print};

pub(super) const AFTER_HELP: &str = "\
For bash: mayfly completions bash > /usr/share/bash-completion/completions/mayfly
For zsh:  mayfly completions zsh > /usr/share/zsh/site-functions/_mayfly
For fish: mayfly completions fish > /usr/share/fish/vendor_completions.d/mayfly.fish";

/// The arguments of `mayfly completions`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut command = visible(&Cli::command());
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "mayfly", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// The command without flags that help does not show, which completion would.
fn visible(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|one| !one.is_hide_set());
    let about = command.get_about().cloned().unwrap_or_default();
    Command::new(command.get_name().to_owned())
        .about(about)
        .args(arguments.cloned())
        .subcommands(command.get_subcommands().map(visible))
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::ValueEnum as _;

    /// The long flags of a command and of those below it, hidden ones or the others.
    fn flags(command: &Command, is_hidden: bool) -> Vec<String> {
        let own = command
            .get_arguments()
            .filter(|one| one.is_hide_set() == is_hidden);
        let own = own.filter_map(|one| one.get_long().map(str::to_owned));
        let below = command
            .get_subcommands()
            .flat_map(|one| flags(one, is_hidden));
        own.chain(below).collect()
    }

    #[test]
    fn every_shell_completes_every_command_and_flag_that_help_shows() {
        let command = Cli::command();
        for shell in Shell::value_variants() {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut visible(&command), "mayfly", &mut text);
            let text = String::from_utf8(text).unwrap();
            for one in command.get_subcommands() {
                assert!(text.contains(one.get_name()), "{shell}: {}", one.get_name());
            }
            for flag in flags(&command, false) {
                assert!(text.contains(&flag), "{shell}: --{flag}");
            }
        }
    }

    #[test]
    fn no_shell_completes_what_help_does_not_show() {
        let hidden = flags(&Cli::command(), true);
        assert!(hidden.contains(&"fileca-cert".to_owned()));
        let shown = flags(&visible(&Cli::command()), false);
        assert_eq!(shown.iter().find(|flag| hidden.contains(flag)), None);
    }
}
