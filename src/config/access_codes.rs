//! `[access_codes]`: who may give out codes, how long they live, and how often
//! guessing one may succeed.

use std::time::Duration;

use super::guess_budget::honest_errors;
use super::kind::{self, Boolean, Fraction, List, Whole, show_duration};
use super::reader::Reader;
use super::{Access, Config, GuessBudget, Rate, SuccessBound};
use crate::identity::{ACCESS_CODE_ROLE, Role};

/// `[access_codes]`, enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessCodes {
    /// How long a code can be redeemed.
    pub lifetime: Duration,
    /// From a redemption to the end of its token and session.
    pub session_lifetime: Duration,
    /// Codes alive at a time, of all lengths together.
    pub alive_max: u32,
    /// Who may give out codes.
    pub issuer_roles: Vec<Role>,
    /// How many one issuer may give out.
    pub per_issuer: Rate,
    /// What each length may take, the shortest first; there is at least one.
    pub budgets: Vec<GuessBudget>,
}

impl AccessCodes {
    /// Reads `[access_codes]`; `None` when it is not enabled. `known` are the roles of
    /// `[[directory.role]]`.
    pub(super) fn read(r: &mut Reader<'_>, known: &[String]) -> Option<Self> {
        let enabled = r.or("enabled", Boolean, false, "Whether there are access codes.");
        let digits = r.or(
            "digits",
            Whole { min: 4, max: 10 },
            6,
            "How long codes are; two and four more, up to ten, once half of a length's guesses \
             are spent.",
        );
        let lifetime =
            r.or("lifetime", kind::seconds(), Duration::from_hours(1), "How long a code is good.");
        let session_lifetime = r.or(
            "session_lifetime",
            kind::seconds(),
            Duration::from_mins(15),
            "From a redemption to the end of its token, which is not renewed; not above \
             token.idle_timeout.",
        );
        let alive_max = r.or(
            "alive_max",
            Whole { min: 1, max: 1_000_000 },
            50,
            "How many codes may be alive at a time; each makes guessing one easier.",
        );
        let issuer_roles = r.or(
            "issuer_roles",
            List { of: kind::line(), min: 0 },
            Vec::new(),
            "The roles of [[directory.role]] that may give out codes; required when enabled.",
        );
        let per_issuer = r.or(
            "per_issuer",
            kind::rate(),
            Rate { count: 30, window: Duration::from_hours(1) },
            "How many codes one person may give out.",
        );
        let bound = r.or(
            "success_probability",
            kind::success_bound(),
            SuccessBound { one_in: 100 },
            "How often guessing may succeed at most, whoever guesses from however many addresses.",
        );
        let typo_share = r.or(
            "typo_share",
            Fraction,
            0.05,
            "How many codes are typed wrongly once, honestly; a budget that these would spend is \
             refused.",
        );
        let alive_max = u32::try_from(alive_max).unwrap_or(u32::MAX);
        let digits = u8::try_from(digits).unwrap_or(u8::MAX);
        if !enabled {
            if r.is_reading() && r.given("issuer_roles") {
                r.note("enabled", "not true: there are no access codes");
            }
            return None;
        }
        let codes = Self {
            lifetime,
            session_lifetime,
            alive_max,
            issuer_roles: issuer_roles.iter().map(|role| Role::new(role)).collect(),
            per_issuer,
            budgets: GuessBudget::of_lengths(digits, alive_max, bound),
        };
        codes.check_issuers(r, &issuer_roles, known);
        codes.check_budgets(r, typo_share);
        Some(codes)
    }

    /// What the shortest codes may take.
    #[must_use]
    pub fn first(&self) -> Option<&GuessBudget> {
        self.budgets.first()
    }

    fn check_issuers(&self, r: &mut Reader<'_>, roles: &[String], known: &[String]) {
        if self.issuer_roles.is_empty() {
            let allowed = "at least one role of [[directory.role]]".to_owned();
            r.problem("issuer_roles", "nobody", allowed);
        }
        for role in roles.iter().filter(|role| !known.contains(role)) {
            r.problem("issuer_roles", format!("{role:?}"), known.join(", "));
        }
    }

    /// Tells the budgets, and refuses one that honest people would spend.
    fn check_budgets(&self, r: &mut Reader<'_>, typo_share: f64) {
        if !r.is_clean() {
            return;
        }
        let honest = honest_errors(self.alive_max, self.lifetime, typo_share);
        for budget in &self.budgets {
            r.note("success_probability", &budget.to_string());
            if honest >= f64::from(budget.tries) {
                let found = format!("{budget}, while honest errors are about {honest:.0}");
                let allowed = "more digits, fewer codes alive, a longer lifetime or a laxer bound";
                r.problem("success_probability", found, allowed.to_owned());
            } else if honest * 2.0 >= f64::from(budget.tries) {
                let digits = budget.digits;
                let text = format!(
                    "honest errors alone, about {honest:.0} on a full day, spend half of the \
                     budget of {digits} digits: codes will be longer then"
                );
                r.note("typo_share", &text);
            }
        }
    }
}

/// Compares access codes with what stands elsewhere in the file.
pub(super) fn check_against_others(r: &mut Reader<'_>, config: &Config) {
    let Some(codes) = &config.access_codes else { return };
    let idle = config.token.idle_timeout;
    if codes.session_lifetime > idle {
        let found = format!("{:?}", show_duration(codes.session_lifetime));
        let allowed = format!("at most token.idle_timeout, {:?}", show_duration(idle));
        r.problem("access_codes.session_lifetime", found, allowed);
    }
    let is_used = config.routes.iter().any(|route| match &route.access {
        Access::Roles(roles) => roles.iter().any(|role| role.as_str() == ACCESS_CODE_ROLE),
        Access::Public | Access::Authenticated => false,
    });
    if !is_used {
        r.note("access_codes", "no route names the role \"access_code\": a code opens nothing");
    }
}
