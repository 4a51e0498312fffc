//! The tables and functions, and what a connection checks before it trusts them.

use lockcore::{Error, ErrorKind, Result};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::error::{classify, state};

/// Raised when a change to the tables or functions would mislead an older version.
/// The comment on the table `lock`.
const LAYOUT: &str = "leasehold 1";

const CREATE: &str = include_str!("sql/create.sql");

/// The migration for `schema`, which has been checked to be a plain name.
pub(crate) fn migration(schema: &str, with_schema: bool) -> String {
    let make = if with_schema {
        "CREATE SCHEMA IF NOT EXISTS {schema};\n"
    } else {
        ""
    };
    CREATE
        .replace("{create_schema}\n", make)
        .replace("{schema}", &quoted(schema))
}

/// A plain name may still be a reserved word.
pub(crate) fn quoted(schema: &str) -> String {
    format!("\"{schema}\"")
}

/// Is the schema there, which layout do its tables have, and may we use them? Columns for a question that is asked anyhow.
pub(crate) fn question(schema: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}')::text AS has_schema, \
         (SELECT coalesce(obj_description(c.oid, 'pg_class'), '') FROM pg_class AS c \
          JOIN pg_namespace AS n ON n.oid = c.relnamespace \
          WHERE n.nspname = '{schema}' AND c.relname = 'lock') AS layout, \
         (SELECT bool_and(has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, right_)) \
          FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
          CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_ \
          WHERE n.nspname = '{schema}' AND c.relname IN ('lock', 'waiter'))::text AS allowed"
    )
}

/// Makes tables and functions where they are missing, and checks their layout.
pub(crate) async fn ensure(connection: &mut PgConnection, schema: &str, found: &PgRow) -> Result<()> {
    let layout: Option<String> = found.try_get("layout").map_err(classify)?;
    match layout.as_deref() {
        Some(LAYOUT) => allowed(schema, found),
        None => {
            let has_schema: String = found.try_get("has_schema").map_err(classify)?;
            create(connection, schema, has_schema != "true").await
        }
        Some(other) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the table lock in the schema {schema} is called {:?}, this version knows {LAYOUT:?}: use another schema",
                other.escape_debug().to_string()
            ),
        )),
    }
}

fn allowed(schema: &str, found: &PgRow) -> Result<()> {
    let allowed: Option<String> = found.try_get("allowed").map_err(classify)?;
    if allowed.as_deref() == Some("true") {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Denied,
        format!(
            "the user may not use the tables for locks: have their owner run \
             GRANT USAGE ON SCHEMA {0} TO <user>; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON {0}.lock, {0}.waiter TO <user>",
            quoted(schema)
        ),
    ))
}

async fn create(connection: &mut PgConnection, schema: &str, with_schema: bool) -> Result<()> {
    let create = sqlx::raw_sql(AssertSqlSafe(migration(schema, with_schema)));
    let Err(error) = create.execute(connection).await else {
        tracing::info!(schema, "made the tables for locks");
        return Ok(());
    };
    if state(&error).as_deref() != Some("42501") {
        return Err(classify(error));
    }
    Err(Error::new(
        ErrorKind::Denied,
        format!(
            "the schema {schema} has no tables for locks, and the user no right to make them: \
             have an administrator run\n{}",
            migration(schema, with_schema)
        ),
    )
    .with_source(classify(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in() {
        let sql = migration("locks", true);
        assert!(sql.contains("CREATE SCHEMA IF NOT EXISTS \"locks\";"));
        assert!(!sql.contains('{') || !sql.contains("{schema}") && !sql.contains("{create_schema}"));
        assert!(!migration("locks", false).contains("CREATE SCHEMA"));
    }
}
