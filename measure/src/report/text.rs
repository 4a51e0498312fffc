//! A report for a terminal.

use std::fmt::Write;

use crate::report::Report;
use crate::report::table::Table;

impl Report {
    /// As a text for people, in columns; lines end with a line end.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.machine.line());
        for (what, version) in &self.versions {
            writeln!(text, "{what}: {version}").ok();
        }
        text.push('\n');
        for section in &self.sections {
            text += &section.title;
            text.push('\n');
            self.table(section).write(&mut text);
            text.push('\n');
        }
        text += &self.conclusion();
        text
    }

    /// What is wrong, or that nothing is.
    pub(super) fn conclusion(&self) -> String {
        let mut text = String::new();
        if self.interrupted {
            text += "Ended before its time: this is what was measured so far.\n";
        }
        let results = self.sections.iter().flat_map(|section| &section.results);
        let failed = results.filter(|standing| standing.failure.is_some()).count();
        if failed > 0 {
            writeln!(text, "Failed: {failed}, see the notes below the tables.").ok();
        }
        if self.alarms.is_empty() {
            text += "No lock was granted twice, no token was stale, no held lock was lost.\n";
        } else {
            text += "DO NOT RELY ON THIS:\n";
            for alarm in &self.alarms {
                writeln!(text, "  {alarm}").ok();
            }
        }
        text
    }
}

impl Table {
    /// The first column to the left, the others to the right.
    fn write(&self, text: &mut String) {
        let heads = self
            .head
            .iter()
            .map(|lines| lines.iter().map(|line| width(line)).max());
        let mut widths: Vec<_> = heads.map(Option::unwrap_or_default).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::from(" ");
            for (column, (cell, width)) in cells.zip(&widths).enumerate() {
                let pad = " ".repeat(width.saturating_sub(self::width(cell)));
                match column {
                    0 => write!(line, " {cell}{pad}").ok(),
                    _ => write!(line, "  {pad}{cell}").ok(),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        };
        for half in 0..2 {
            line(&mut self.head.iter().map(|lines| &*lines[half]));
        }
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str));
        }
        for note in &self.notes {
            writeln!(text, "  {note}").ok();
        }
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}
