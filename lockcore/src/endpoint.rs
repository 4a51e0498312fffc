//! A backend's URL, taken apart once for every driver.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind, Result};

/// A text that is never shown: `Debug` prints `***`, there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that logs in with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// `scheme://user:password@host:port,host:port/path?option=value`, or `scheme:path?option=value`.
///
/// Everything is percent-decoded. The parts that a driver understands are taken out; [`Endpoint::finish`] refuses
/// the options that are left, so that a misspelt one is an error and not silence.
#[derive(Clone, Debug)]
pub struct Endpoint {
    scheme: String,
    user: Option<String>,
    password: Option<Secret>,
    hosts: Vec<(String, Option<u16>)>,
    path: String,
    options: BTreeMap<String, String>,
    known: Vec<String>,
}

impl Endpoint {
    /// Takes `url` apart.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid). The message never shows the URL, which may hold a password.
    pub fn parse(url: &str) -> Result<Self> {
        let url = url.trim();
        let (scheme, rest) = url
            .split_once(':')
            .ok_or_else(|| invalid("the URL has no scheme: write e.g. memory:"))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if scheme.is_empty()
            || !scheme.chars().all(plain)
            || !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        {
            return Err(invalid("the URL does not start with a scheme such as memory:"));
        }
        if rest.contains('#') {
            return Err(invalid(
                "the URL has a fragment (#): write %23 for a # in a path or password",
            ));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut endpoint = Self {
            scheme: scheme.to_ascii_lowercase(),
            user: None,
            password: None,
            hosts: Vec::new(),
            path: String::new(),
            options: BTreeMap::new(),
            known: Vec::new(),
        };
        match rest.strip_prefix("//") {
            None => endpoint.path = decode(rest, "path")?,
            Some(rest) => {
                let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
                endpoint.path = decode(path, "path")?;
                endpoint.parse_authority(authority)?;
            }
        }
        for (option, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if endpoint
                .options
                .insert(option.to_string(), value.into_owned())
                .is_some()
            {
                return Err(invalid(format!("the URL has the option {option:?} twice")));
            }
        }
        Ok(endpoint)
    }

    fn parse_authority(&mut self, authority: &str) -> Result<()> {
        let (login, hosts) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(login, hosts)| (Some(login), hosts));
        if let Some(login) = login {
            let (user, password) = login
                .split_once(':')
                .map_or((login, None), |(user, password)| (user, Some(password)));
            self.user = Some(decode(user, "user name")?).filter(|user| !user.is_empty());
            self.password = password
                .map(|password| decode(password, "password"))
                .transpose()?
                .map(Secret::new);
        }
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            self.hosts.push(parse_host(host)?);
        }
        Ok(())
    }

    /// The scheme in lower case.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user name.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Sets the login, whatever the URL says: for a password that does not belong into one.
    pub fn set_login(&mut self, user: Option<String>, password: Option<Secret>) {
        self.user = user;
        self.password = password;
    }

    /// The hosts in order, IPv6 addresses without brackets.
    #[must_use]
    pub fn hosts(&self) -> &[(String, Option<u16>)] {
        &self.hosts
    }

    /// The only host; `localhost` when there is none.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when there are several.
    pub fn single_host(&self) -> Result<(&str, Option<u16>)> {
        match self.hosts.as_slice() {
            [] => Ok(("localhost", None)),
            [(host, port)] => Ok((host, *port)),
            _ => Err(invalid(format!("{}: takes one host", self.scheme))),
        }
    }

    /// The path with its leading slash, or all that follows the scheme where there is no `//`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Takes the option out of the query; an empty value counts as one.
    pub fn take_option(&mut self, option: &str) -> Option<String> {
        self.known.push(option.to_owned());
        self.options.remove(option)
    }

    /// Takes a duration such as `30s`, `1m 30s` or `500ms`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when it cannot be read.
    pub fn take_duration(&mut self, option: &str) -> Result<Option<Duration>> {
        self.take_option(option)
            .map(|text| {
                humantime::parse_duration(&text).map_err(|error| {
                    invalid(format!("the URL's {option} is no duration such as 30s: {error}"))
                })
            })
            .transpose()
    }

    /// Takes `true` or `false`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for anything else.
    pub fn take_bool(&mut self, option: &str) -> Result<Option<bool>> {
        self.take_option(option)
            .map(|text| {
                text.parse()
                    .map_err(|_| invalid(format!("the URL's {option} is true or false")))
            })
            .transpose()
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), with the options that are known.
    pub fn finish(mut self) -> Result<()> {
        let Some(option) = self.options.into_keys().next() else {
            return Ok(());
        };
        self.known.sort();
        self.known.dedup();
        Err(invalid(format!(
            "the URL has the unknown option {option:?}; known are: {}",
            self.known.join(", ")
        )))
    }
}

fn parse_host(text: &str) -> Result<(String, Option<u16>)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or_else(|| invalid("the URL's IPv6 address lacks its ]"))?;
        (host, rest.strip_prefix(':'))
    } else {
        text.rsplit_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port)))
    };
    let port = port
        .map(|port| {
            port.parse()
                .map_err(|_| invalid(format!("the URL's port is a number up to 65535, not {port:?}")))
        })
        .transpose()?;
    let host = decode(host, "host")?;
    if host.is_empty() {
        return Err(invalid("the URL has a port but no host"));
    }
    Ok((host, port))
}

fn decode(text: &str, part: &str) -> Result<String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| {
        invalid(format!(
            "the URL's {part} is not UTF-8 once it is percent-decoded"
        ))
    })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_url_apart() {
        let mut endpoint =
            Endpoint::parse("Store://us%40er:p%3Aw@h1:1,[::1]:2,h3/app/x?ttl=1m%2030s&tls=true&n=").unwrap();
        assert_eq!(endpoint.scheme(), "store");
        assert_eq!(endpoint.user(), Some("us@er"));
        assert_eq!(endpoint.password().unwrap().expose(), "p:w");
        assert_eq!(
            endpoint.hosts(),
            [
                ("h1".into(), Some(1)),
                ("::1".into(), Some(2)),
                ("h3".into(), None)
            ]
        );
        assert_eq!(endpoint.path(), "/app/x");
        assert_eq!(
            endpoint.take_duration("ttl").unwrap(),
            Some(Duration::from_secs(90))
        );
        assert_eq!(endpoint.take_bool("tls").unwrap(), Some(true));
        assert_eq!(endpoint.take_option("n"), Some(String::new()));
        assert!(!format!("{endpoint:?}").contains("p:w"));
        endpoint.finish().unwrap();
    }

    #[test]
    fn paths_without_an_authority() {
        assert_eq!(Endpoint::parse("file:/var/x.db").unwrap().path(), "/var/x.db");
        assert_eq!(Endpoint::parse("file:rel.db").unwrap().path(), "rel.db");
        assert_eq!(Endpoint::parse("file:///var/x.db").unwrap().path(), "/var/x.db");
        assert_eq!(Endpoint::parse("file:").unwrap().path(), "");
    }

    #[test]
    fn errors_keep_the_password() {
        for url in [
            "",
            "x",
            "://",
            "1x:",
            "s://u:secret@h:99999",
            "s://u:secret@[::1",
            "s://:secret@h?a=1&a=2",
            "s://u:secret@:1",
            "s://u:sec#ret@h",
            "s://%ff:secret@h",
        ] {
            let error = Endpoint::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(!format!("{error} {error:?}").contains("sec"), "{url}: {error}");
        }
    }

    #[test]
    fn unknown_options_are_named() {
        let mut endpoint = Endpoint::parse("s://h?tttl=1").unwrap();
        endpoint.take_option("ttl");
        assert_eq!(
            endpoint.finish().unwrap_err().to_string(),
            "the URL has the unknown option \"tttl\"; known are: ttl"
        );
    }
}
