//! Statements as text: what a script asks, and what came back.
//!
//! A script goes to the server in one packet and is executed there without a word from this process, so that nobody who
//! is stopped in the middle keeps a row locked. Scripts cannot have bound parameters; values are written into the text as
//! numbers and hexadecimal literals, which no setting of the server reads as anything else.
//!
//! What is asked most, and is one statement, is prepared instead: parsing it takes longer than carrying it out.

use std::fmt::Write as _;
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use lockcore::{AttemptId, Error, Result};
use sqlx::mysql::{MySql, MySqlArguments, MySqlConnection, MySqlQueryResult, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Either, Executor as _, Row as _};

use crate::error::classify;

/// The server's clock in microseconds since 1970, as of the start of the statement.
pub(crate) const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";

/// A value in a script.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Bytes(&'a [u8]),
    /// Plain ASCII that we made.
    Word(&'a str),
    Attempt(AttemptId),
    Number(u64),
    Micros(Duration),
    /// SQL that we made.
    Sql(&'a str),
    Null,
}

impl Value<'_> {
    pub(crate) fn write(self, script: &mut String) {
        // Writing to a string does not fail.
        match self {
            Self::Bytes(bytes) => hex(bytes, script),
            Self::Word(word) => write!(script, "'{word}'").unwrap_or_default(),
            Self::Attempt(attempt) => write!(script, "x'{}'", attempt.to_hex()).unwrap_or_default(),
            Self::Number(number) => write!(script, "{number}").unwrap_or_default(),
            Self::Micros(duration) => write!(script, "{}", micros(duration)).unwrap_or_default(),
            Self::Sql(sql) => script.push_str(sql),
            Self::Null => script.push_str("NULL"),
        }
    }
}

/// At least one: nothing lasts no time at all.
pub(crate) fn micros(duration: Duration) -> u64 {
    let micros = duration.as_nanos().div_ceil(1_000).max(1);
    // The longest that lockcore allows are days.
    u64::try_from(micros).unwrap_or(u64::MAX).min(1 << 52)
}

pub(crate) fn hex(bytes: &[u8], script: &mut String) {
    script.push_str("x'");
    for byte in bytes {
        write!(script, "{byte:02x}").unwrap_or_default();
    }
    script.push('\'');
}

/// `template` with each `:word` replaced by its value, and without its comments. Every template is one of ours.
pub(crate) fn fill(template: &str, values: &[(&str, Value<'_>)]) -> String {
    let mut script = String::with_capacity(template.len() * 2);
    for line in template.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("--") {
            continue;
        }
        let mut rest = line;
        while let Some(colon) = rest.find(':') {
            script.push_str(&rest[..colon]);
            rest = &rest[colon + 1..];
            let end = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            match values.iter().find(|(name, _)| *name == word) {
                Some((_, value)) => value.write(&mut script),
                None if word == "now" => script.push_str(NOW),
                // The server will name it.
                None => {
                    script.push(':');
                    script.push_str(word);
                }
            }
        }
        script.push_str(rest);
        script.push('\n');
    }
    script
}

/// The words that stand for bytes.
const BYTES: [&str; 3] = ["key", "me", "details"];

/// A statement that each connection prepares once.
#[derive(Debug)]
pub(crate) struct Statement {
    sql: String,
    /// The words that its question marks stand for.
    words: Vec<&'static str>,
}

impl Statement {
    /// With each `:word` of `template` a parameter. Bytes go as hexadecimal text: the server shows statements with their
    /// parameters in its list of processes, and MySQL refuses to whoever reads it what is no text.
    pub(crate) fn new(template: &'static str) -> Self {
        let mut words = Vec::new();
        let mut sql = String::with_capacity(template.len() * 2);
        for line in template.lines().map(str::trim) {
            if line.is_empty() || line.starts_with("--") {
                continue;
            }
            let mut rest = line;
            while let Some((before, after)) = rest.split_once(':') {
                let end = after
                    .find(|c: char| !c.is_ascii_lowercase())
                    .unwrap_or(after.len());
                let (word, after) = after.split_at(end);
                rest = after;
                sql.push_str(before);
                if word == "now" {
                    sql.push_str(NOW);
                } else {
                    sql.push_str(if BYTES.contains(&word) { "UNHEX(?)" } else { "?" });
                    words.push(word);
                }
            }
            sql.push_str(rest);
            sql.push('\n');
        }
        Self { sql, words }
    }

    /// One that lives as long as the program, with its values.
    pub(crate) fn with(&'static self, values: &[(&str, Value<'_>)]) -> Request {
        let find = |word: &&str| values.iter().find(|(name, _)| name == word);
        let values = self
            .words
            .iter()
            .map(|word| find(word).map_or(Bound::Null, |(_, value)| Bound::from(*value)));
        Request::Prepared {
            sql: &self.sql,
            values: values.collect(),
        }
    }
}

/// A parameter's value.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    Word(String),
    Number(i64),
    Null,
}

impl From<Value<'_>> for Bound {
    fn from(value: Value<'_>) -> Self {
        let number = |number: u64| Self::Number(i64::try_from(number).unwrap_or(i64::MAX));
        match value {
            Value::Bytes(bytes) => Self::Word(HEXLOWER.encode(bytes)),
            Value::Word(word) | Value::Sql(word) => Self::Word(word.to_owned()),
            Value::Attempt(attempt) => Self::Word(attempt.to_hex()),
            Value::Number(value) => number(value),
            Value::Micros(duration) => number(micros(duration)),
            Value::Null => Self::Null,
        }
    }
}

/// What is sent to the server at once.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Script(String),
    Prepared { sql: &'static str, values: Vec<Bound> },
}

impl From<String> for Request {
    fn from(script: String) -> Self {
        Self::Script(script)
    }
}

impl Request {
    /// Does it leave a transaction open when it fails?
    pub(crate) fn is_transaction(&self) -> bool {
        matches!(self, Self::Script(script) if script.starts_with(BEGINS))
    }

    fn send(self, connection: &mut MySqlConnection) -> Answers<'_> {
        match self {
            Self::Script(script) => connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(script))),
            Self::Prepared { sql, values } => {
                let query: Query<'_, MySql, MySqlArguments> = sqlx::query(sql);
                connection.fetch_many(values.into_iter().fold(query, |query, value| match value {
                    Bound::Word(word) => query.bind(word),
                    Bound::Number(number) => query.bind(number),
                    Bound::Null => query.bind(None::<i64>),
                }))
            }
        }
    }
}

type Answers<'c> = BoxStream<'c, sqlx::Result<Either<MySqlQueryResult, MySqlRow>>>;

/// How a script begins that leaves a transaction open when it fails.
const BEGINS: &str = "START TRANSACTION";

/// What one statement of a script gave.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) rows: Vec<MySqlRow>,
    pub(crate) last_insert_id: u64,
    pub(crate) matched: u64,
}

/// Runs `request` to its end. After an error the connection may be in the middle of a transaction.
pub(crate) async fn run(
    connection: &mut MySqlConnection,
    request: impl Into<Request>,
) -> sqlx::Result<Vec<Reply>> {
    let mut replies = Vec::new();
    let mut rows = Vec::new();
    let mut stream = request.into().send(connection);
    while let Some(item) = stream.try_next().await? {
        match item {
            Either::Right(row) => rows.push(row),
            Either::Left(done) => replies.push(Reply {
                rows: std::mem::take(&mut rows),
                last_insert_id: done.last_insert_id(),
                matched: done.rows_affected(),
            }),
        }
    }
    Ok(replies)
}

/// The only row of the statement that gave rows.
pub(crate) fn answer(replies: &[Reply]) -> Result<&MySqlRow> {
    replies
        .iter()
        .find_map(|reply| reply.rows.first())
        .ok_or_else(|| {
            Error::new(
                lockcore::ErrorKind::Internal,
                "the server answered without the row that was asked for",
            )
        })
}

/// A column, whatever type the server says it has.
pub(crate) fn get<'r, T>(row: &'r MySqlRow, column: usize) -> Result<T>
where
    T: sqlx::Decode<'r, MySql>,
{
    row.try_get_unchecked(column).map_err(classify)
}

/// A column that is a text that we wrote.
pub(crate) fn text(row: &MySqlRow, column: usize) -> Result<Option<String>> {
    let bytes: Option<&[u8]> = get(row, column)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_into_templates() {
        let filled = fill(
            "-- :a\nSELECT :a, :b, ':c', :now, :d + :a; :unknown",
            &[
                ("a", Value::Bytes(b"o'x")),
                ("b", Value::Number(3)),
                ("c", Value::Sql("x")),
                ("d", Value::Micros(Duration::from_nanos(1_001))),
            ],
        );
        assert_eq!(
            filled,
            format!("SELECT x'6f2778', 3, 'x', {NOW}, 2 + x'6f2778'; :unknown\n")
        );
        assert_eq!(micros(Duration::ZERO), 1);
    }

    #[test]
    fn a_statement_has_a_parameter_for_each_word() {
        let statement = Statement::new("-- :a\nSELECT :b, :now\nFROM x WHERE a = :a AND b = :b");
        assert_eq!(
            statement.sql,
            format!("SELECT ?, {NOW}\nFROM x WHERE a = ? AND b = ?\n")
        );
        assert_eq!(statement.words, ["b", "a", "b"]);
    }
}
