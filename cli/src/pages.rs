//! Completion scripts and manual pages.

use std::io;

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
    let title = command.get_display_name().unwrap_or("leasehold").to_owned();
    let page = Man::new(
        command
            .display_name(title.clone())
            .bin_name(title.replace('-', " ")),
    )
    .title(title);
    let mut text = Vec::new();
    render(&page, &mut text)
        .map_err(|error| Failure::new(Code::Internal, format!("cannot write the page: {error}")))?;
    output::print(|out| out.write_all(&text))
}

fn render(page: &Man, text: &mut Vec<u8>) -> io::Result<()> {
    page.render(text)
}
