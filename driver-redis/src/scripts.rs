//! The Lua scripts: constants, known to the server by their SHA-1.

use redis::Script;

/// A script's text and its hash.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) text: &'static str,
    pub(crate) hash: String,
}

impl Program {
    fn new(text: &'static str) -> Self {
        Self {
            text,
            hash: Script::new(text).get_hash().to_owned(),
        }
    }
}

/// Every script.
#[derive(Debug)]
pub(crate) struct Scripts {
    pub(crate) acquire: Program,
    pub(crate) takes: Program,
    pub(crate) release: Program,
    pub(crate) frees: Program,
    pub(crate) force: Program,
    pub(crate) renew: Program,
    pub(crate) inspect: Program,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            acquire: Program::new(concat!(
                include_str!("scripts/grant.lua"),
                include_str!("scripts/take.lua"),
                include_str!("scripts/offer.lua"),
                include_str!("scripts/acquire.lua")
            )),
            takes: Program::new(concat!(
                include_str!("scripts/grant.lua"),
                include_str!("scripts/takes.lua")
            )),
            release: Program::new(concat!(
                include_str!("scripts/free.lua"),
                include_str!("scripts/offer.lua"),
                include_str!("scripts/release.lua")
            )),
            frees: Program::new(include_str!("scripts/frees.lua")),
            force: Program::new(concat!(
                include_str!("scripts/offer.lua"),
                include_str!("scripts/force.lua")
            )),
            renew: Program::new(include_str!("scripts/renew.lua")),
            inspect: Program::new(concat!(
                include_str!("scripts/offer.lua"),
                include_str!("scripts/inspect.lua")
            )),
        }
    }

    pub(crate) fn all(&self) -> [&Program; 7] {
        [
            &self.acquire,
            &self.takes,
            &self.release,
            &self.frees,
            &self.force,
            &self.renew,
            &self.inspect,
        ]
    }
}
