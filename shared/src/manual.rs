//! What a shell and `man` know of a command line: made from the command line itself, so that they are never of another one.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use clap::{Command, Subcommand};
use clap_complete::{Shell, generate};

use crate::checkpoint::write_atomic;

/// Subcommands that both nodes' commands have.
#[derive(Subcommand)]
pub enum ManualCommand {
    /// Prints what completes this command's words in a shell
    #[command(after_help = "Examples:
  edge-node completions bash > /etc/bash_completion.d/edge-node
  edge-node completions zsh > ~/.zfunc/_edge-node
  edge-node completions fish > ~/.config/fish/completions/edge-node.fish")]
    Completions { shell: Shell },
    /// Writes man pages, one for each subcommand
    #[command(after_help = "Example:
  edge-node man /usr/local/share/man/man1 && man edge-node-serve")]
    Man { folder: PathBuf },
}

impl ManualCommand {
    /// `command`: the whole command line.
    pub fn run(&self, mut command: Command) -> Result<(), String> {
        match self {
            Self::Completions { shell } => {
                let (name, mut text) = (command.get_name().to_string(), Vec::new());
                generate(*shell, &mut command, name, &mut text);
                match std::io::stdout().write_all(&text) {
                    // Who reads has read enough.
                    Err(e) if e.kind() != ErrorKind::BrokenPipe => {
                        Err(format!("standard output: {e}"))
                    }
                    _ => Ok(()),
                }
            }
            Self::Man { folder } => pages(command, folder),
        }
    }
}

/// `name.1`, and `name-sub.1` for each subcommand.
fn pages(mut command: Command, folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    // Gives subcommands their whole names, and the flags that are for all.
    command.build();
    page(&command, folder)
}

fn page(command: &Command, folder: &Path) -> Result<(), String> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_string();
    let mut text = Vec::new();
    let manual = clap_mangen::Man::new(command.clone());
    manual.render(&mut text).map_err(|e| format!("{name}: {e}"))?;
    write_atomic(&folder.join(format!("{name}.1")), &text).map_err(|e| e.to_string())?;
    let subcommands = command.get_subcommands().filter(|c| !c.is_hide_set());
    subcommands.filter(|c| c.get_name() != "help").try_for_each(|c| page(c, folder))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// Does something.
    #[derive(clap::Parser)]
    #[command(name = "node", version = "1")]
    struct Node {
        #[command(subcommand)]
        _command: Sub,
    }

    #[derive(Subcommand)]
    enum Sub {
        /// Serves.
        Serve {
            /// Where.
            #[arg(long)]
            _port: Option<u16>,
        },
        /// Is not shown.
        #[command(hide = true)]
        Inner,
        #[command(flatten)]
        _Manual(ManualCommand),
    }

    #[test]
    fn there_is_a_page_for_each_subcommand_that_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let man = ManualCommand::Man { folder: folder.path().into() };
        man.run(Node::command()).unwrap();
        let names = fs::read_dir(folder.path()).unwrap().map(|f| f.unwrap().file_name());
        let mut names: Vec<String> = names.map(|n| n.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["node-completions.1", "node-man.1", "node-serve.1", "node.1"]);
        let text = fs::read_to_string(folder.path().join("node-serve.1")).unwrap();
        assert!(text.contains("Serves") && text.contains("port"), "{text}");
    }
}
