//! The little DER that RSA keys need: a JSON Web Key holds eight numbers, the
//! cryptographic library takes and gives them as PKCS#1 and PKCS#8. Knows only that.

use zeroize::Zeroizing;

use crate::secret::Secret;

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The numbers of an RSA private key in the order of RFC 8017 appendix A.1.2:
/// n, e, d, p, q, d mod (p-1), d mod (q-1), q⁻¹ mod p. Big-endian, no leading zeros.
pub(super) type RsaNumbers = [Secret<Vec<u8>>; 8];

/// Reads the numbers out of a PKCS#8 `PrivateKeyInfo`; `None` if it is none.
pub(super) fn rsa_numbers_of_pkcs8(pkcs8: &[u8]) -> Option<RsaNumbers> {
    let mut info = Reader(pkcs8).element(SEQUENCE).map(Reader)?;
    info.element(INTEGER)?;
    info.element(SEQUENCE)?;
    let mut key = Reader(info.element(OCTET_STRING)?).element(SEQUENCE).map(Reader)?;
    key.element(INTEGER)?;
    let mut numbers = Vec::with_capacity(8);
    for _ in 0..8 {
        numbers.push(Secret::new(without_zeros(key.element(INTEGER)?).to_vec()));
    }
    numbers.try_into().ok()
}

/// The numbers as a PKCS#1 `RSAPrivateKey`.
pub(super) fn pkcs1_of_rsa_numbers(numbers: &RsaNumbers) -> Secret<Vec<u8>> {
    let mut content = Zeroizing::new(Vec::new());
    write(&mut content, INTEGER, &[0]);
    for number in numbers {
        let digits = without_zeros(number.expose());
        let mut integer = Zeroizing::new(Vec::with_capacity(digits.len() + 1));
        // A set first bit would read as a negative number.
        if digits.first().is_none_or(|first| *first >= 0x80) {
            integer.push(0);
        }
        integer.extend_from_slice(digits);
        write(&mut content, INTEGER, &integer);
    }
    let mut der = Vec::with_capacity(content.len() + 8);
    write(&mut der, SEQUENCE, &content);
    Secret::new(der)
}

/// A big-endian number without its leading zeros.
pub(super) fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The content of the next element, which must have this tag.
    fn element(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_first_chunk::<2>()?;
        if head[0] != tag {
            return None;
        }
        let (length, rest) = match head[1] {
            short @ 0..=0x7f => (usize::from(short), rest),
            0x81 => rest.split_first().map(|(byte, rest)| (usize::from(*byte), rest))?,
            0x82 => {
                let (bytes, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_be_bytes(*bytes)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}

/// Appends one element of less than 64 KiB, which the largest RSA key is.
fn write(der: &mut Vec<u8>, tag: u8, content: &[u8]) {
    der.push(tag);
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    match content.len() {
        0..=0x7f => der.push(length[1]),
        0x80..=0xff => der.extend_from_slice(&[0x81, length[1]]),
        _ => der.extend_from_slice(&[0x82, length[0], length[1]]),
    }
    der.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::RsaKeyPair;

    use super::{pkcs1_of_rsa_numbers, rsa_numbers_of_pkcs8};

    #[test]
    fn the_numbers_of_a_key_make_that_key_again() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = pair.as_der().unwrap();
        let numbers = rsa_numbers_of_pkcs8(pkcs8.as_ref()).unwrap();
        assert_eq!(numbers[0].expose().len(), 256);
        let again = RsaKeyPair::from_der(pkcs1_of_rsa_numbers(&numbers).expose()).unwrap();
        assert_eq!(again.as_der().unwrap().as_ref(), pkcs8.as_ref());
    }

    #[test]
    fn a_torn_key_is_none() {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8 = pair.as_der().unwrap();
        for length in 0..pkcs8.as_ref().len() {
            assert!(rsa_numbers_of_pkcs8(&pkcs8.as_ref()[..length]).is_none(), "{length}");
        }
    }
}
