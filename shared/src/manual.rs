//! What `--help`, a shell and `man` know of a command line: made from the command line itself, so that they are never of
//! another one. The two programs say alike here what is alike in them.

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use clap::{Command, Subcommand};
use clap_complete::{Shell, generate};

use crate::checkpoint::write_atomic;

/// What a program's own examples are followed by.
pub const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 a bad command or configuration, 128 + N ended at once by a second signal N.
Every key of the configuration can be set by --set KEY=VALUE, and by a variable of the environment:
CLEAVE_LOG__LEVEL=debug is log.level.";

/// What those of `doctor` are followed by.
pub const DOCTOR: &str =
    "It changes nothing. Its exit code is 1 if anything is an error; warnings are none.";

/// The end of a `--help`: examples, and what there is to know beside them.
pub fn explained(examples: &str, note: &str) -> String {
    format!("{examples}\n\n{note}")
}

/// Subcommands that both nodes' commands have; their examples come by [`with_examples`].
#[derive(Subcommand)]
pub enum ManualCommand {
    /// Prints what completes this command's words in a shell
    Completions { shell: Shell },
    /// Writes man pages, one for each subcommand
    Man { folder: PathBuf },
}

/// Gives the commands of [`ManualCommand`] their examples, in which the program has its own name: for `mut_subcommands`.
pub fn with_examples(program: &'static str) -> impl Fn(Command) -> Command {
    move |command| match command.get_name() {
        "completions" => command.after_help(format!(
            "Examples:
  {program} completions bash > /etc/bash_completion.d/{program}
  {program} completions zsh > ~/.zfunc/_{program}
  {program} completions fish > ~/.config/fish/completions/{program}.fish"
        )),
        "man" => command.after_help(format!(
            "Examples:
  {program} man /usr/local/share/man/man1 && man {program}-serve"
        )),
        _ => command,
    }
}

/// The commands that `--help` shows, each with its examples as the program gets them: for tests, which hand them to its
/// parser.
pub fn examples(program: &Command) -> Vec<(String, Vec<Vec<String>>)> {
    let mut found = Vec::new();
    let mut left = vec![(program.get_name().to_string(), program)];
    while let Some((name, command)) = left.pop() {
        let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
        left.extend(shown.map(|c| (format!("{name} {}", c.get_name()), c)));
        let help = command.get_after_help().map(|help| help.to_string()).unwrap_or_default();
        // A line may go on in the next one. Behind an empty line there is only prose.
        let help = help.split("\\\n").map(str::trim_start).collect::<Vec<_>>().join(" ");
        let lines = help.split("\n\n").next().and_then(|text| text.strip_prefix("Examples:\n"));
        let lines = lines.unwrap_or_default().lines();
        let examples: Vec<_> = lines.map(|line| words(program.get_name(), line)).collect();
        found.push((name, examples));
    }
    found
}

/// The words of an example, without what is said of it and what a shell does.
fn words(program: &str, line: &str) -> Vec<String> {
    let line = line.trim().split("   ").next().unwrap_or_default();
    let line = line.split(['|', '>', '&']).next().unwrap_or_default();
    let words = line.split_whitespace().skip_while(|word| *word != program);
    words.map(|word| word.trim_matches('"').to_string()).collect()
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
    use clap::{CommandFactory, Parser};

    use super::*;

    /// Does something.
    #[derive(Parser)]
    #[command(name = "node", version = "1", mut_subcommands(with_examples("node")))]
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

    #[test]
    fn examples_are_of_the_program_that_shows_them() {
        let all = examples(&Node::command());
        let of = |name: &str| {
            let (_, examples) = all.iter().find(|(command, _)| command == name).expect(name);
            examples.iter().map(|words| words.join(" ")).collect::<Vec<_>>()
        };
        let shells = ["bash", "zsh", "fish"].map(|shell| format!("node completions {shell}"));
        assert_eq!(of("node completions"), shells);
        assert_eq!(of("node man"), ["node man /usr/local/share/man/man1"]);
        assert!(of("node serve").is_empty());
        assert_eq!(all.len(), 4, "what is hidden has none to show");
        for words in all.iter().flat_map(|(_, examples)| examples) {
            assert!(Node::try_parse_from(words).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn an_example_is_read_as_a_shell_reads_it() {
        let text = explained(
            "Examples:\n  A=1 node ask --text \"x\" \\\n      --top 3    a remark",
            "node it is.",
        );
        let program = Command::new("node").after_help(text);
        let words = ["node", "ask", "--text", "x", "--top", "3"].map(String::from).to_vec();
        assert_eq!(examples(&program), [("node".to_string(), vec![words])]);
    }
}
