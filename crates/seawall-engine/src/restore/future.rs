//! Targets that lie in the future of whoever asks.
//!
//! They are not refused for that alone: it may be the clock at hand that is wrong, on a machine that
//! was set up in a hurry, and the archive that is right.

use jiff::{SignedDuration, Timestamp};
use seawall_core::{Code, Error};

use super::{RestoreRequest, Target};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The target's time, if the clock at hand has not come to it yet.
fn ahead(request: &RestoreRequest) -> Option<Timestamp> {
    request.target.time().filter(|time| *time > request.asked_at)
}

/// The error of a target that is not reached, which could not be.
pub(super) fn tell(request: &RestoreRequest, error: Error) -> Error {
    let Some(time) = ahead(request).filter(|_| error.code() == Code::TargetUnreachable) else {
        return error;
    };
    let now = request.asked_at;
    let mut hint = "`--latest` is the newest state there is.".to_owned();
    if let Ok(day_before) = time.checked_sub(DAY)
        && day_before <= now
    {
        hint = format!("The day before, that was `{day_before}`. {hint}");
    }
    error.context(format!("{time} lies in the future, and it is {now} now")).with_hint(hint)
}

/// What a person should know who asked for a time that has not come, and can have it.
pub(super) fn warning(request: &RestoreRequest) -> Option<String> {
    ahead(request).map(|time| {
        format!(
            "{time} lies in the future: it is {} by this machine's clock. The archive reaches beyond it, so that clock or the server's was wrong.",
            request.asked_at
        )
    })
}

impl Target {
    /// The moment it names, if it names one.
    #[must_use]
    pub const fn time(&self) -> Option<Timestamp> {
        use super::Point::Time;
        match self {
            Self::To(Time(time)) | Self::Before(Time(time)) => Some(*time),
            _ => None,
        }
    }
}
