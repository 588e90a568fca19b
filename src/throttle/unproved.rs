//! What a try costs us before its password was tried. It counts for the address, or
//! for the device where the account knows it, and never for the account.

use crate::config::Rate;
use crate::store::{Counting, Window, WindowFamily};
use crate::throttle::attempt::Attempt;
use crate::throttle::{Denied, PER_ADDRESS};

impl Attempt {
    /// Counts work that is done for whoever asks, until the password was right. A
    /// stranger's try counts for the address already; a known device has a limit like an
    /// address, of its own.
    ///
    /// # Errors
    /// When there was too much of it, or the store cannot answer.
    pub async fn costs(&mut self) -> Result<(), Denied> {
        let counts = self.tries.iter().any(|(window, _)| window.family == WindowFamily::Address);
        let Some(device) = self.device.entry.as_ref().filter(|_| !counts) else { return Ok(()) };
        let Rate { count, window: length } = self.inner.config.load().per_address;
        let key = self.inner.key(&[b"unproved".as_slice(), &device.key].concat());
        let (family, counting) = (WindowFamily::Address, Counting::Sliding);
        let window = Window { family, key, count, length, counting };
        let delay = self.count(&[window], &[PER_ADDRESS]).await?;
        self.delay += delay;
        Ok(())
    }

    /// The password was not tried, because of something that has nothing to do with it:
    /// the account has no failure, and the address did not fail on one.
    pub async fn untried(self) {
        self.give_back(|window| {
            window.family != WindowFamily::Address || window.counting != Counting::Sliding
        })
        .await;
    }
}
