//! Keys as they stand in PEM files: SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7) and PKCS#8 (RFC 5958), in DER
//! (X.690), reduced to what the signature library takes.
//!
//! A key is told by the identifiers of its algorithm and its curve, so one of another kind is refused when it is read and
//! not at each token. Lengths beyond 64 KiB and indefinite ones are refused: no key has them.

use zeroize::Zeroizing;

use crate::key::Algorithm;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// `rsaEncryption` (RFC 8017).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// `id-ecPublicKey` (RFC 5480).
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `secp256r1` (RFC 5480).
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// `id-Ed25519` (RFC 8410).
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The bytes of a point of P-256: a tag for "not compressed", and two coordinates.
const P256_POINT: usize = 65;
/// The bytes of a public key of Ed25519.
const ED25519_KEY: usize = 32;

/// A public key, and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PublicKey<'d> {
    pub(crate) algorithm: Algorithm,
    /// Of RSA: the `RSAPublicKey` (RFC 8017). Of the others: the key itself.
    pub(crate) bytes: &'d [u8],
    /// The length of an RSA modulus.
    pub(crate) modulus_bits: Option<usize>,
}

/// A private key, and what it is for.
pub(crate) struct PrivateKey {
    pub(crate) algorithm: Algorithm,
    /// Of RSA: the `RSAPrivateKey` (RFC 8017). Of the others: the PKCS#8 document.
    pub(crate) bytes: Zeroizing<Vec<u8>>,
}

/// Its bytes wipe themselves.
const _: fn(&PrivateKey) -> &Zeroizing<Vec<u8>> = |key| &key.bytes;

/// Reads elements, one behind the other.
struct Elements<'d>(&'d [u8]);

impl<'d> PublicKey<'d> {
    /// Reads a SubjectPublicKeyInfo; `None` for one of another algorithm, or a malformed one.
    pub(crate) fn read(info: &'d [u8]) -> Option<Self> {
        let mut info = Elements(Elements(info).only(SEQUENCE)?);
        let algorithm = algorithm_of(info.next(SEQUENCE)?)?;
        let (unused_bits, bytes) = info.last(BIT_STRING)?.split_first()?;
        let modulus_bits = match algorithm {
            Algorithm::Rs256 => Some(modulus_bits(bytes)?),
            Algorithm::Es256 if bytes.len() == P256_POINT && bytes[0] == 4 => None,
            Algorithm::EdDsa if bytes.len() == ED25519_KEY => None,
            Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Hs256 => return None,
        };
        (*unused_bits == 0).then_some(Self { algorithm, bytes, modulus_bits })
    }
}

impl PrivateKey {
    /// Reads a PKCS#8 document; `None` for one of another algorithm, or a malformed one.
    pub(crate) fn read(document: &[u8]) -> Option<Self> {
        let mut info = Elements(Elements(document).only(SEQUENCE)?);
        info.next(INTEGER)?;
        let algorithm = algorithm_of(info.next(SEQUENCE)?)?;
        let inner = info.next(OCTET_STRING)?;
        let bytes = if algorithm == Algorithm::Rs256 { inner } else { document };
        Some(Self { algorithm, bytes: Zeroizing::new(bytes.to_vec()) })
    }
}

impl<'d> Elements<'d> {
    /// The content of the next element, if it is of this kind.
    fn next(&mut self, tag: u8) -> Option<&'d [u8]> {
        let (found, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = match (*first, rest) {
            (length @ 0..=0x7f, rest) => (usize::from(length), rest),
            (0x81, [length, rest @ ..]) => (usize::from(*length), rest),
            (0x82, [high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (*found == tag).then_some(content)
    }

    /// The same of an element behind which nothing stands.
    fn last(mut self, tag: u8) -> Option<&'d [u8]> {
        let content = self.next(tag)?;
        self.0.is_empty().then_some(content)
    }

    fn only(self, tag: u8) -> Option<&'d [u8]> {
        self.last(tag)
    }
}

fn algorithm_of(identifier: &[u8]) -> Option<Algorithm> {
    let mut identifier = Elements(identifier);
    match identifier.next(OBJECT_IDENTIFIER)? {
        RSA => Some(Algorithm::Rs256),
        EC if identifier.next(OBJECT_IDENTIFIER)? == P256 => Some(Algorithm::Es256),
        ED25519 => Some(Algorithm::EdDsa),
        _ => None,
    }
}

fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut key = Elements(Elements(key).only(SEQUENCE)?);
    let modulus = key.next(INTEGER)?;
    key.last(INTEGER)?;
    let significant = modulus.iter().position(|byte| *byte != 0).map_or(&[][..], |at| &modulus[at..]);
    let leading = significant.first().map_or(0, |byte| byte.leading_zeros());
    (significant.len() * 8).checked_sub(usize::try_from(leading).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _};

    use super::*;

    #[test]
    fn a_key_is_told_by_its_identifiers() {
        let table = [(&PKCS_ECDSA_P256_SHA256, Some(Algorithm::Es256)), (&PKCS_ED25519, Some(Algorithm::EdDsa))];
        for (kind, algorithm) in table {
            let pair = KeyPair::generate_for(kind).unwrap();
            let (public, private) = (pair.subject_public_key_info(), pair.serialize_der());
            assert_eq!(PublicKey::read(&public).map(|key| key.algorithm), algorithm);
            assert_eq!(PrivateKey::read(&private).map(|key| key.algorithm), algorithm);
            assert!(PublicKey::read(&private).is_none() && PrivateKey::read(&public).is_none());
            assert!(PublicKey::read(&public[..public.len() - 1]).is_none());
            assert!(PublicKey::read(&[public.as_slice(), &[0]].concat()).is_none(), "something follows");
        }
        let other_curve = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        assert!(PublicKey::read(&other_curve.subject_public_key_info()).is_none());
        assert!(PrivateKey::read(&other_curve.serialize_der()).is_none());
    }

    #[test]
    fn the_length_of_a_modulus_is_counted_without_leading_zeros() {
        let key = |modulus: &[u8]| {
            let integer = [&[INTEGER, u8::try_from(modulus.len()).unwrap()], modulus].concat();
            let content = [integer.as_slice(), &[INTEGER, 1, 3]].concat();
            [&[SEQUENCE, u8::try_from(content.len()).unwrap()], content.as_slice()].concat()
        };
        for (modulus, bits) in [(&[0x00, 0x80, 0x00][..], 16), (&[0x01, 0xff], 9), (&[0x7f], 7), (&[0x00], 0), (&[], 0)]
        {
            assert_eq!(modulus_bits(&key(modulus)), Some(bits), "{modulus:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let wrapped = [&[SEQUENCE, u8::try_from(bytes.len()).unwrap()], bytes.as_slice()].concat();
            for input in [&bytes, &wrapped] {
                prop_assert!(PublicKey::read(input).is_none());
                prop_assert!(PrivateKey::read(input).is_none());
            }
        }
    }
}
