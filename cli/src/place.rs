//! Where the locks are when nobody says: a SQLite file in the user's state folder.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use etcetera::BaseStrategy;
use etcetera::base_strategy::Xdg;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::exit::{Code, Failure};

/// What a path in a URL may not have as it is.
const RESERVED: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');

const ADVICE: &str = "say where the locks are with --url or LEASEHOLD_URL, such as sqlite:/path/locks.db";

/// The URL that was given, or that of the embedded default, whose folder is made.
pub(crate) fn url(given: Option<&str>) -> Result<String, Failure> {
    // An empty variable is an unset one.
    if let Some(url) = given.filter(|url| !url.trim().is_empty()) {
        return Ok(url.to_owned());
    }
    let folder = state_folder()
        .ok_or_else(|| Failure::new(Code::Config, format!("this user has no home folder: {ADVICE}")))?
        .join("leasehold");
    let shown = folder.display();
    // The locks of a user are nobody else's business.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|error| {
            Failure::new(
                Code::Config,
                format!("cannot make the folder {shown}: {error}; {ADVICE}"),
            )
        })?;
    let file = folder.join("locks.db");
    let path = file.to_str().ok_or_else(|| {
        Failure::new(
            Code::Config,
            format!("the path of {shown} is not UTF-8: {ADVICE}"),
        )
    })?;
    Ok(format!("sqlite:{}", utf8_percent_encode(path, RESERVED)))
}

fn state_folder() -> Option<PathBuf> {
    match Xdg::new() {
        Ok(folders) => folders.state_dir().filter(|folder| folder.is_absolute()),
        // Nothing is asked of the home folder when the state folder is given.
        Err(_) => std::env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute()),
    }
}
