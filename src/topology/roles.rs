//! Which server is the primary, by what each says of itself.

/// What a server said of itself when it answered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// It is not in recovery.
    pub(super) is_primary: bool,
    /// The timeline that it writes, or is known to replay.
    pub(super) timeline: u32,
    /// The identifier of its cluster, when it may be asked.
    pub(super) system: Option<i64>,
}

/// The one to write to: of those that are primaries the one with the highest timeline, of equals the
/// present one. One whose timeline is lower than the highest ever seen has been left behind by a
/// promotion, and must not be written to.
pub(super) fn primary_of(
    standings: impl Iterator<Item = (usize, Standing)>,
    highest: u32,
    present: usize,
) -> Option<usize> {
    let candidates = standings.filter(|(_, it)| it.is_primary && it.timeline >= highest);
    let best =
        candidates.max_by_key(|(at, it)| (it.timeline, *at == present, std::cmp::Reverse(*at)));
    best.map(|(at, _)| at)
}

/// The identifier of the cluster: what the configured primary says, which is the first of the servers;
/// or else the primary of the highest timeline, or any.
pub(super) fn system_of(standings: &[Option<Standing>]) -> Option<i64> {
    let first = standings.first().copied().flatten();
    let highest = || {
        let answering = standings.iter().flatten();
        answering
            .max_by_key(|it| (it.is_primary, it.timeline))
            .copied()
    };
    first.or_else(highest).and_then(|it| it.system)
}

/// Whether a server may be of that cluster.
pub(super) fn is_of(standing: &Standing, system: Option<i64>) -> bool {
    match (standing.system, system) {
        (Some(its), Some(system)) => its == system,
        // It may not be asked.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn primary(timeline: u32) -> Standing {
        Standing {
            is_primary: true,
            timeline,
            system: Some(1),
        }
    }

    fn standby(timeline: u32) -> Standing {
        Standing {
            is_primary: false,
            ..primary(timeline)
        }
    }

    fn chosen(standings: &[Standing], highest: u32, present: usize) -> Option<usize> {
        primary_of(standings.iter().copied().enumerate(), highest, present)
    }

    #[test]
    fn the_highest_timeline_is_written_to() {
        assert_eq!(chosen(&[primary(1), standby(1)], 1, 0), Some(0));
        assert_eq!(chosen(&[primary(1), primary(2)], 1, 0), Some(1));
        assert_eq!(chosen(&[primary(3), primary(2)], 2, 1), Some(0));
        assert_eq!(chosen(&[standby(1), standby(1)], 1, 0), None);
        assert_eq!(chosen(&[], 1, 0), None);
    }

    #[test]
    fn an_old_primary_that_comes_back_is_not_written_to() {
        // The new one does not answer at the moment.
        assert_eq!(chosen(&[primary(1), standby(2)], 2, 2), None);
        assert_eq!(chosen(&[primary(1)], 2, 0), None);
        assert_eq!(chosen(&[primary(1), primary(2)], 2, 0), Some(1));
    }

    #[test]
    fn of_equals_the_present_one_stays() {
        assert_eq!(chosen(&[primary(2), primary(2)], 2, 1), Some(1));
        assert_eq!(chosen(&[primary(2), primary(2)], 2, 0), Some(0));
        assert_eq!(chosen(&[standby(2), primary(2), primary(2)], 2, 0), Some(1));
    }

    #[test]
    fn the_configured_primary_says_which_cluster_it_is() {
        let other = Standing {
            system: Some(2),
            ..primary(9)
        };
        assert_eq!(system_of(&[Some(primary(1)), Some(other)]), Some(1));
        assert_eq!(system_of(&[None, Some(standby(1)), Some(other)]), Some(2));
        assert_eq!(system_of(&[None, None]), None);
        assert!(!is_of(&other, Some(1)));
        assert!(is_of(&other, None));
        let unknown = Standing {
            system: None,
            ..primary(1)
        };
        assert!(is_of(&unknown, Some(1)));
    }
}
