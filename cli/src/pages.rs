//! Completion scripts and manual pages.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_mangen::Man;

use crate::args::{self, Cli};
use crate::exit::{Code, Failure};
use crate::output;

pub(crate) fn completions(args: &args::Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "leasehold", &mut script);
    output::print(|out| out.write_all(&script))
}

pub(crate) fn man(args: &args::Man) -> Result<(), Failure> {
    let mut program = Cli::command();
    // Passes the options that every command has down to them, and names the pages.
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::new(
                Code::Usage,
                format!("there is no command {name:?}: see leasehold --help"),
            )
        })?,
    };
    let mut text = Vec::new();
    page(command, &mut text)
        .map_err(|error| Failure::new(Code::Internal, format!("cannot write the page: {error}")))?;
    output::print(|out| out.write_all(&text))
}

fn page(mut command: clap::Command, text: &mut Vec<u8>) -> io::Result<()> {
    let title = command.get_display_name().unwrap_or("leasehold").to_owned();
    let usage = command.render_usage().to_string();
    let more = command.get_after_long_help().map(ToString::to_string);
    let commands = command.has_subcommands();
    let page = Man::new(command.display_name(&title))
        .title(&title)
        .source(concat!("leasehold ", env!("CARGO_PKG_VERSION")));
    page.render_title(text)?;
    page.render_name_section(text)?;
    section(text, "Synopsis", &[usage.trim_start_matches("Usage: ")])?;
    page.render_description_section(text)?;
    page.render_options_section(text)?;
    if commands {
        page.render_subcommands_section(text)?;
    }
    more.map_or(Ok(()), |more| sections(text, &more))
}

/// Sections of a help text: a heading ends with a colon, what follows is indented. What comes last may be neither.
fn sections(text: &mut Vec<u8>, help: &str) -> io::Result<()> {
    let mut heading = "Notes";
    let mut lines = Vec::new();
    for line in help.lines() {
        let new = match line.strip_suffix(':') {
            Some(new) if !line.starts_with(' ') => Some(new),
            // The text that belongs to no heading.
            None if !line.starts_with(' ') && !line.is_empty() && heading != "Notes" => Some("Notes"),
            _ => None,
        };
        if let Some(new) = new {
            section(text, heading, &lines)?;
            lines.clear();
            heading = new;
        }
        if new.is_none_or(|new| new == "Notes") {
            lines.push(line.strip_prefix("  ").unwrap_or(line));
        }
    }
    section(text, heading, &lines)
}

/// A section whose lines stay as they are.
fn section(text: &mut Vec<u8>, heading: &str, lines: &[&str]) -> io::Result<()> {
    let end = lines
        .iter()
        .rposition(|line| !line.is_empty())
        .map_or(0, |last| last + 1);
    if end == 0 {
        return Ok(());
    }
    writeln!(text, ".SH {}\n.nf", heading.to_uppercase())?;
    for line in &lines[..end] {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        // A line that starts with a dot or a quote would be a request.
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        writeln!(text, "{guard}{line}")?;
    }
    writeln!(text, ".fi")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_becomes_sections() {
        let mut text = Vec::new();
        let help = "Examples:\n  leasehold -x \\\n  .dot\n\nExit status:\n   0  fine\n\nTo be\nnoted.";
        sections(&mut text, help).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            ".SH EXAMPLES\n.nf\nleasehold \\-x \\e\n\\&.dot\n.fi\n\
             .SH EXIT STATUS\n.nf\n 0  fine\n.fi\n\
             .SH NOTES\n.nf\nTo be\nnoted.\n.fi\n"
        );
    }
}
