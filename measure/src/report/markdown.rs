//! A report as Markdown.

use std::fmt::Write;

use crate::report::Report;

impl Report {
    /// As Markdown, from the second level of headings on: where and when, and one table for each case.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        self.circumstances(&mut text).ok();
        let mut last = None;
        for section in &self.sections {
            let scenario = section.case.scenario;
            write!(text, "\n## {}\n\n", escaped(&section.title)).ok();
            if last.replace(scenario) != Some(scenario) {
                write!(text, "{}\n\n", scenario.description()).ok();
            }
            let table = self.table(section);
            let head: Vec<_> = table
                .head
                .iter()
                .map(|head| head.join(" ").trim().to_owned())
                .collect();
            line(&mut text, &head);
            let rule: Vec<_> = (0..head.len())
                .map(|column| if column == 0 { "---" } else { "---:" }.to_owned())
                .collect();
            line(&mut text, &rule);
            for row in &table.rows {
                line(&mut text, row);
            }
            for note in &table.notes {
                write!(text, "\n- {}", escaped(note)).ok();
            }
            if !table.notes.is_empty() {
                text.push('\n');
            }
        }
        text
    }

    fn circumstances(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "- Measured on {}, in {:.0} s.", self.started, self.seconds)?;
        writeln!(text, "- Machine: {}.", escaped(&self.machine.line()))?;
        for (what, version) in &self.versions {
            writeln!(text, "- {}: {}", escaped(what), escaped(version))?;
        }
        let rounds = self.plan.rounds;
        writeln!(
            text,
            "- Medians of {rounds} rounds, in each of which everybody has a turn."
        )?;
        for line in self.conclusion().lines() {
            writeln!(text, "- {}", escaped(line.trim()))?;
        }
        Ok(())
    }
}

fn line(text: &mut String, cells: &[String]) {
    let cells: Vec<_> = cells
        .iter()
        .map(|cell| {
            if cell.starts_with("---") {
                cell.clone()
            } else {
                escaped(cell)
            }
        })
        .collect();
    writeln!(text, "| {} |", cells.join(" | ")).ok();
}

/// Text that means itself.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '|' | '*' | '_' | '`' | '<' | '[' | ']' | '\\' => escaped.extend(['\\', char]),
            char if char.is_control() => escaped.push(' '),
            char => escaped.push(char),
        }
    }
    escaped
}
