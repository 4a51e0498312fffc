//! The mutants, and the scenarios that reject them.

use std::sync::Arc;
use std::time::Duration;

use crate::leases::*;
use crate::mutation::{Mutant, Mutation};
use crate::names::{self, Renames};
use crate::queues::*;
use crate::sessions::*;
use crate::tokens::*;

struct Unchanged;

impl Mutation for Unchanged {}

const fn unchanged(name: &'static str, sessions: bool) -> Mutant {
    Mutant {
        name,
        what: "",
        by: &[],
        sessions,
        make: || Arc::new(Unchanged),
    }
}

pub(crate) const UNCHANGED: [Mutant; 2] = [
    unchanged("unchanged", false),
    unchanged("unchanged-sessions", true),
];

macro_rules! mutants {
    ($sessions:literal; $($name:ident $by:tt $what:literal => $make:expr;)*) => {
        &[$(Mutant {
            name: stringify!($name),
            what: $what,
            by: &$by,
            sessions: $sessions,
            make: || Arc::new($make),
        }),*]
    };
}

pub(crate) const MUTANTS: &[Mutant] = mutants! {
    false;
    // Who holds.
    blind_release ["EX12", "HL1"] "a release deletes the lock, whoever has it" => BlindRelease;
    always_released ["EX12", "HL1"] "a release says that it freed what it did not hold" => AlwaysReleased;
    owner_per_connection ["ME2"] "the owner is the connection, not the attempt" => OwnerPerConnection;
    id_per_request ["CX9"] "a request that is sent again has another id" => IdPerRequest::default();
    forgets_lost_answers ["CX9"] "what an answer that was lost has granted is not released" => ForgetsLostAnswers::default();
    errors_are_busy ["SM6"] "errors are told as a busy lock" => ErrorsAreBusy;
    one_permit_too_many ["SM1"] "a semaphore has one permit more than it should" => OnePermitTooMany;
    // For how long.
    counts_from_the_answer ["EX1"] "the lease counts from the answer, not from the request" => CountsFromTheAnswer::default();
    stores_half ["EX1"] "the store keeps the lease for half of what is promised" => StoresAnotherTtl(|ttl| ttl / 2);
    stores_double ["EX12"] "the store keeps the lease for twice as long as is promised" => StoresAnotherTtl(|ttl| ttl * 2);
    whole_seconds ["EX4"] "a TTL is cut to whole seconds" => StoresAnotherTtl(|ttl| Duration::from_secs(ttl.as_secs()));
    replay_extends ["EX11"] "a request that is repeated extends the lease" => ReplayExtends::default();
    immortal_session ["LD6"] "a session that never reports a loss" => ImmortalSession;
    renewal_never_fails ["LD2"] "a renewal of what is gone is said to have worked" => RenewsTheGone(Gone::Denies);
    renewal_resurrects ["EX12"] "a renewal takes a lock again that had expired" => RenewsTheGone(Gone::Resurrects);
    renewal_steals ["EX12"] "a renewal takes a lock away from its next holder" => RenewsTheGone(Gone::Steals);
    renews_by_name ["EX12"] "a renewal extends the lease of whoever holds the lock now" => RenewsByName::default();
    renews_the_first ["RN11"] "of a batch only the first lease is renewed" => RenewsTheFirst;
    answers_backwards ["RN14"] "the answers of a batch are in the wrong order" => AnswersBackwards;
    batches_lock_up ["FT13"] "of two batches at one time one fails" => BatchesLockUp::default();
    renews_one_by_one ["CO3"] "each lease is renewed with a request of its own" => RenewsOneByOne;
    // Tokens.
    token_reset_by_clean_up ["FT17"] "tokens start anew when idle names are removed" => OwnTokens::new(Forgets::AtCleanUp);
    token_reset_at_release ["FE1"] "tokens start anew when the lock is deleted" => OwnTokens::new(Forgets::AtRelease);
    token_reset_by_force ["FE1"] "tokens start anew after a release by force" => OwnTokens::new(Forgets::WhenTakenByForce);
    token_of_the_second ["FE3"] "a token is a clock reading in seconds" => ClockForToken;
    token_changed_by_renewal ["FE2"] "a renewal changes the token" => RenewalsCount::default();
    token_changed_by_replay ["EX11"] "a repeated request gets another token" => FreshTokenForReplay::default();
    shows_the_dead ["FE5"] "who had the lock last is shown as its holder" => ShowsTheDead::default();
    // The queue.
    deaf ["WT4", "FQ1"] "wake-ups are lost" => Deaf;
    abandons_its_place ["CX1", "CX10"] "a waiter that gives up stays in the queue" => AbandonsItsPlace::default();
    try_queues ["ME8"] "a try that is refused stays in the queue" => TryQueues;
    try_overtakes ["FQ2"] "a try takes a free lock, whoever's turn it is" => TryOvertakes::default();
    last_in_first_out ["FQ1"] "the last one who came is served first" => LastInFirstOut;
    herd ["FQ6", "CO2"] "a release wakes everybody" => Herd::default();
    woken_is_granted ["FQ3"] "the head of the queue is granted when it asks again, whatever happened meanwhile" => WokenIsGranted::default();
    tells_no_expiry ["FE1", "LD6"] "waiters are not told when the lock can be free" => TellsNoExpiry;
    endless_turn ["FQ3"] "the turn of a dead waiter is kept for ever" => EndlessTurn;
    readers_pass_writers ["RW2"] "readers go in past a waiting writer" => ReadersPassWriters;
    gone_place_is_an_error ["FQ11"] "a waiter whose place was deleted gives up" => GonePlaceIsAnError::default();
    grants_after_the_goodbye ["FT14"] "who gives up at the wrong moment holds the lock" => GrantsAfterTheGoodbye::default();
    asks_twice ["CO1"] "an acquire takes two round trips" => AsksTwice;
    // Names.
    lower_case ["NM2", "NM11"] "names are folded to lower case" => Renames(names::lower_case);
    trimmed ["NM3", "NM11"] "spaces at the end of a name are dropped" => Renames(names::trimmed);
    cut_short ["NM1", "NM11"] "a name is cut after 64 bytes" => Renames(names::cut_short);
    cut_at_nul ["NM1", "NM11"] "a name ends at its first NUL" => Renames(names::up_to_the_first_nul);
    without_namespace ["NM6"] "namespaces are ignored" => Renames(names::without_namespace);
    without_kind ["NM7"] "kinds are ignored" => Renames(names::without_kind);
};

/// On locks that live by sessions.
pub(crate) const ON_SESSIONS: &[Mutant] = mutants! {
    true;
    deaf_sessions ["EX13", "LD12", "FQ4"] "nobody hears that a session ended" => Deaf;
    outlives_its_client ["EX7"] "a session goes on without its client" => OutlivesItsClient::default();
    never_extends ["RN1", "RN15"] "keep-alives prolong nothing" => NeverExtends::default();
};

/// The scenarios that this mutant keeps busy for minutes, if not for ever.
pub(crate) fn endless(mutant: &str) -> &'static [&'static str] {
    match mutant {
        // Every one of a crowd of waiters looks again whenever a turn that nobody heard of is over.
        "deaf" | "deaf_sessions" | "owner_per_connection" | "id_per_request" => {
            &["ME4", "ME5", "ME10", "WT6", "SM4"]
        }
        // Two who take the lock from each other without end, in no time.
        "renewal_steals" => &["FQ5", "FT3"],
        _ => &[],
    }
}
