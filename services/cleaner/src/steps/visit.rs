//! What the visit says: machines, clients, referrers, campaigns.

use rapport_events::FieldError;
use rapport_policy::{BotAction, Policy};
use rapport_proto::events::{Campaign, Client, Event, Referrer};

use crate::{
    bots,
    enrich::{self, Context},
    step_counts::Outcome,
};

/// What the visit says, found before privacy removes what it is found in.
#[derive(Debug, Default)]
pub(super) struct Visit {
    pub client: Option<Client>,
    pub referrer: Option<Referrer>,
    pub campaign: Option<Campaign>,
}

/// Why the event is taken for a machine's.
///
/// # Errors
/// Rule `bot`, where the policy refuses machines.
pub(super) fn machine(context: &Context<'_>, policy: &Policy) -> Result<(Outcome, Vec<&'static str>), FieldError> {
    let reasons = bots::reasons(context, &policy.bots);
    match (reasons.first(), policy.bots.action) {
        (None, _) => Ok((Outcome::Passed, reasons)),
        (Some(_), BotAction::Mark) => Ok((Outcome::Changed, reasons)),
        (Some(first), BotAction::Refuse) => {
            let field = match *first {
                "user_agent" => "properties.context.userAgent",
                "ip" => "properties.context.ip",
                _ => "properties.context.bot",
            };
            let reason = format!("the policy refuses machines; this one is known by {}", reasons.join(", "));
            Err(FieldError::policy(field, reason).by_rule("bot"))
        }
    }
}

/// Client, referrer and campaign, as far as the policy wants them.
pub(super) fn read(event: &Event, policy: &Policy) -> (Outcome, Visit) {
    let (context, rules) = (Context::of(event), &policy.enrich);
    let (page, agent) = (context.page_url(), context.user_agent());
    let visit = Visit {
        client: if rules.client && !agent.is_empty() { enrich::client(agent) } else { None },
        referrer: if rules.referrer {
            enrich::referrer(page, context.page_referrer(), &rules.internal_hosts)
        } else {
            None
        },
        campaign: if rules.campaign { enrich::campaign(page, context.campaign()) } else { None },
    };
    let found = visit.client.is_some() || visit.referrer.is_some() || visit.campaign.is_some();
    (if found { Outcome::Changed } else { Outcome::Passed }, visit)
}
