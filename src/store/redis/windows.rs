//! Counted windows in Redis: one script looks at all windows of an attempt and
//! counts it in all of them, or in none.

use std::time::Duration;

use crate::ambient::Timestamp;
use crate::store::redis::{Redis, number, parsed};
use crate::store::{AttemptId, Counting, StoreError, Taken, Window, WindowFamily};

impl Redis {
    pub(in crate::store) async fn count_attempt(
        &self,
        attempt: AttemptId,
        windows: &[Window],
        now: Timestamp,
    ) -> Result<Taken, StoreError> {
        if windows.is_empty() {
            return Ok(Taken::Counted { before: 0 });
        }
        let mut args = vec![self.time(now)];
        for window in windows {
            args.push(number(i64::from(window.count)));
            args.extend([length(window), kind(window), window.member(attempt).to_vec()]);
        }
        let keys: Vec<_> = windows.iter().map(|window| self.window(window)).collect();
        let full = self.link.script(&self.scripts.count_attempt, &keys, &args).await?;
        let (index, rest): (i64, u64) = parsed(full)?;
        Ok(match usize::try_from(index) {
            Ok(index) => Taken::Full { index, wait: Duration::from_millis(rest) },
            Err(_) => Taken::Counted { before: u32::try_from(rest).unwrap_or(u32::MAX) },
        })
    }

    pub(in crate::store) async fn give_back(
        &self,
        attempt: AttemptId,
        windows: &[Window],
    ) -> Result<(), StoreError> {
        if windows.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = windows.iter().map(|window| self.window(window)).collect();
        let members: Vec<_> =
            windows.iter().map(|window| window.member(attempt).to_vec()).collect();
        self.link.script(&self.scripts.give_back, &keys, &members).await.map(drop)
    }

    pub(in crate::store) async fn attempts(
        &self,
        window: &Window,
        now: Timestamp,
    ) -> Result<u32, StoreError> {
        let args = [self.time(now), length(window), kind(window)];
        parsed(self.link.script(&self.scripts.attempts, &[self.window(window)], &args).await?)
    }

    fn window(&self, window: &Window) -> Vec<u8> {
        let name = match window.family {
            WindowFamily::Account => "tries:account:",
            WindowFamily::Address => "tries:address:",
            WindowFamily::Code => "tries:code:",
            WindowFamily::Entry => "tries:entry:",
        };
        [&self.common(name)[..], &window.key].concat()
    }
}

fn length(window: &Window) -> Vec<u8> {
    number(i64::try_from(window.length.as_millis()).unwrap_or(i64::MAX))
}

fn kind(window: &Window) -> Vec<u8> {
    match window.counting {
        Counting::Sliding => b"s".to_vec(),
        Counting::Renewed => b"r".to_vec(),
        Counting::Distinct(_) => b"d".to_vec(),
    }
}
