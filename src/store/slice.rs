//! A large table is swept slice by slice, so that nobody waits long for the sweep.
//! Knows no store.

use std::ops::RangeInclusive;

use crate::identity::SessionId;

/// About how many rows one slice holds; looking through them takes milliseconds.
const ROWS: u64 = 16_384;
const SLICES_MAX: u64 = 1024;

/// Ranges of session ids, in their order, that hold all of them: as ids are random,
/// about as many of so many rows each.
pub(super) fn slices(rows: u64) -> impl Iterator<Item = RangeInclusive<SessionId>> {
    let count = (rows / ROWS).next_power_of_two().min(SLICES_MAX);
    let width = (u64::from(u16::MAX) + 1) / count;
    let bound = |head: u64, rest: u8| {
        let [.., one, two] = head.to_be_bytes();
        let mut id = [rest; 16];
        (id[0], id[1]) = (one, two);
        SessionId::from_bytes(id)
    };
    (0..count).map(move |slice| bound(slice * width, 0)..=bound((slice + 1) * width - 1, u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::slices;
    use crate::identity::SessionId;

    #[test]
    fn every_id_is_in_one_slice_however_many_rows_there_are() {
        let ids = (0..=u8::MAX).flat_map(|byte| {
            [[byte; 16], [byte, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]]
                .map(SessionId::from_bytes)
        });
        for (rows, count) in
            [(0, 1), (20_000, 1), (40_000, 2), (11_000_000, 1024), (u64::MAX / 2, 1024)]
        {
            assert_eq!(slices(rows).count(), count);
            for id in ids.clone() {
                assert_eq!(slices(rows).filter(|slice| slice.contains(&id)).count(), 1);
            }
        }
    }
}
