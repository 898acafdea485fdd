//! What `--help` of every command says, as it was read and found good.

use std::process::Command;

use crate::common::program::{refuse, succeed};

/// The commands that the program's own help lists, and those below them.
fn commands() -> Vec<Vec<String>> {
    let mut commands = vec![vec![]];
    let mut at = 0;
    while at < commands.len() {
        let help = help_of(&commands[at]);
        let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        // A command's description may go on in further lines, which are indented by more.
        let names = list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
        let below: Vec<Vec<String>> =
            names.filter(|name| *name != "help").map(|name| [&commands[at][..], &[name.to_owned()]].concat()).collect();
        commands.extend(below);
        at += 1;
    }
    commands
}

fn help_of(command: &[String]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_latentr3"));
    // As wide as where there is no terminal.
    let output = program.args(command).arg("--help").env_remove("COLUMNS").output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_explains_itself() {
    let commands = commands();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        let name = if command.is_empty() { "latentr3".to_owned() } else { command.join("-") };
        let help = help_of(&command);
        insta::assert_snapshot!(name, help);
    }
}

#[test]
fn help_teaches() {
    let help = succeed(&["--help"]);
    for command in [
        "demo",
        "prepare",
        "init",
        "pretrain",
        "sft",
        "grpo",
        "direction",
        "evaluate",
        "baseline",
        "merge",
        "compare",
        "experiment",
        "recommend",
        "report",
        "score",
        "devices",
        "bench",
    ] {
        assert!(help.contains(command), "{command}");
        let help = succeed(&[command, "--help"]);
        assert!(help.contains("--quiet"), "{command}: {help}");
        let computes = !["prepare", "baseline", "merge", "compare", "devices"].contains(&command);
        assert_eq!(help.contains("--device <"), computes, "{command}: {help}");
    }
    // Wherever a user looks for it.
    assert_eq!(succeed(&["--quiet", "devices"]), succeed(&["devices", "--quiet"]));
    refuse(&["merge", "a.json", "--seed", "1", "--json", "b.json"]);
}
