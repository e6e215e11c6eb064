//! RSA moduli that look right and are not: small factors, the fingerprint of a broken generator, factors too close.
//!
//! The tests of the Baseline Requirements for publicly trusted certificates (section 6.1.1.3), which Fulcio applies too.

use num_bigint::BigUint;

/// The primes up to 751, the greatest that NIST SP 800-89 (section 5.3.3) tells to look for.
const SMALL_PRIMES: [u32; 133] = [
    2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167, 173, 179, 181, 191, 193,
    197, 199, 211, 223, 227, 229, 233, 239, 241, 251, 257, 263, 269, 271, 277, 281, 283, 293, 307,
    311, 313, 317, 331, 337, 347, 349, 353, 359, 367, 373, 379, 383, 389, 397, 401, 409, 419, 421,
    431, 433, 439, 443, 449, 457, 461, 463, 467, 479, 487, 491, 499, 503, 509, 521, 523, 541, 547,
    557, 563, 569, 571, 577, 587, 593, 599, 601, 607, 613, 617, 619, 631, 641, 643, 647, 653, 659,
    661, 673, 677, 683, 691, 701, 709, 719, 727, 733, 739, 743, 751,
];

/// The greatest prime that every modulus of the broken generator shows its fingerprint under, whatever its size.
const GREATEST_ROCA_PRIME: u32 = 167;

/// How many pairs of close factors are tried.
const FERMAT_ROUNDS: u32 = 100;

/// What is wrong with a modulus. The factors are told to nobody: the key may be in use elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WeakModulus {
    /// A prime up to 751 divides it.
    #[error("its modulus is divisible by a small prime")]
    SmallFactor,
    /// It was made by the generator of CVE-2017-15361 (ROCA).
    #[error("its modulus has the fingerprint of a broken key generator (ROCA, CVE-2017-15361)")]
    Roca,
    /// Its two factors lie next to each other (CVE-2022-26320).
    #[error("its modulus is the product of two factors that are too close to each other")]
    CloseFactors,
}

/// Checks a modulus, big endian. Its size is for the caller to check first: the work grows with it.
pub(super) fn check(modulus: &[u8]) -> Result<(), WeakModulus> {
    let modulus = BigUint::from_bytes_be(modulus);
    if SMALL_PRIMES
        .iter()
        .any(|&prime| remainder(&modulus, prime) == 0)
    {
        return Err(WeakModulus::SmallFactor);
    }
    if has_roca_fingerprint(&modulus) {
        return Err(WeakModulus::Roca);
    }
    if has_close_factors(&modulus) {
        return Err(WeakModulus::CloseFactors);
    }
    Ok(())
}

fn remainder(number: &BigUint, divisor: u32) -> u32 {
    u32::try_from(number % divisor).unwrap_or_default()
}

/// Whether the modulus is a power of 65537 modulo every small prime, as the primes of that generator are by construction
/// (Nemec et al.: "The Return of Coppersmith's Attack", 2017, section 2). By chance: about once in 2^28 moduli.
fn has_roca_fingerprint(modulus: &BigUint) -> bool {
    SMALL_PRIMES
        .iter()
        .filter(|&&prime| (3..=GREATEST_ROCA_PRIME).contains(&prime))
        .all(|&prime| is_power_of_65537(remainder(modulus, prime), prime))
}

fn is_power_of_65537(residue: u32, prime: u32) -> bool {
    let generator = 65537 % prime;
    let mut power = 1;
    loop {
        if power == residue {
            return true;
        }
        power = power * generator % prime;
        if power == 1 {
            return false;
        }
    }
}

/// Whether some a among the first above the square root makes a² − n a square b², which gives n = (a + b)(a − b): Fermat's
/// method of factoring.
fn has_close_factors(modulus: &BigUint) -> bool {
    let mut a = modulus.sqrt();
    if &a * &a < *modulus {
        a += 1_u32;
    }
    let mut difference = &a * &a - modulus;
    for _ in 0..FERMAT_ROUNDS {
        if is_square(&difference) {
            return true;
        }
        difference += (&a << 1_u32) + 1_u32;
        a += 1_u32;
    }
    false
}

fn is_square(number: &BigUint) -> bool {
    // Squares have one of twelve remainders modulo 64, so that most roots need not be drawn.
    const SQUARES_MODULO_64: u64 = {
        let mut squares = 0;
        let mut root = 0_u64;
        while root < 64 {
            squares |= 1 << (root * root % 64);
            root += 1;
        }
        squares
    };
    let low_bits = number.iter_u64_digits().next().unwrap_or_default() % 64;
    if SQUARES_MODULO_64 >> low_bits & 1 == 0 {
        return false;
    }
    let root = number.sqrt();
    &root * &root == *number
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The next number from `start` that no prime below a million divides and that passes Fermat's test: prime enough.
    fn next_prime(mut start: BigUint) -> BigUint {
        start |= BigUint::from(1_u32);
        loop {
            let is_sieved = SMALL_PRIMES
                .iter()
                .any(|&prime| remainder(&start, prime) == 0);
            let two = BigUint::from(2_u32);
            if !is_sieved && two.modpow(&(&start - 1_u32), &start) == BigUint::from(1_u32) {
                return start;
            }
            start += 2_u32;
        }
    }

    /// A number of exactly `bits` bits that looks random and is the same at every run.
    fn number(bits: u64, seed: u64) -> BigUint {
        let random = crate::random::SeededRandom::new(seed);
        let mut bytes = vec![0; usize::try_from(bits / 8).unwrap()];
        crate::random::Random::fill(&random, &mut bytes).unwrap();
        bytes[0] |= 0xc0;
        BigUint::from_bytes_be(&bytes)
    }

    #[test]
    fn a_product_of_two_distant_primes_passes() {
        let modulus = next_prime(number(512, 1)) * next_prime(number(512, 2));
        assert_eq!(check(&modulus.to_bytes_be()), Ok(()));
    }

    #[test]
    fn every_small_factor_is_found() {
        let large = next_prime(number(512, 1));
        for prime in SMALL_PRIMES {
            let modulus = &large * prime;
            assert_eq!(
                check(&modulus.to_bytes_be()),
                Err(WeakModulus::SmallFactor),
                "{prime}"
            );
        }
        for modulus in [0_u32, 2, 4] {
            assert_eq!(
                check(&BigUint::from(modulus).to_bytes_be()),
                Err(WeakModulus::SmallFactor),
                "{modulus}"
            );
        }
        let modulus = large * 757_u32;
        assert_eq!(
            check(&modulus.to_bytes_be()),
            Ok(()),
            "757 is the first prime above the limit"
        );
    }

    #[test]
    fn the_list_holds_every_prime_up_to_751() {
        let primes: Vec<u32> = (2..=751).filter(|n| (2..*n).all(|d| n % d != 0)).collect();
        assert_eq!(primes, SMALL_PRIMES);
    }

    #[test]
    fn primes_of_the_broken_generator_are_found() {
        // A prime of that generator is k·M + (65537^a mod M), M the product of the first primes: 126 of them at 2048 bits.
        let product: BigUint = SMALL_PRIMES.iter().take(126).product();
        let prime = |a: u32, seed: u64| {
            let mut candidate = number(80, seed) * &product
                + BigUint::from(65537_u32).modpow(&BigUint::from(a), &product);
            let two = BigUint::from(2_u32);
            while two.modpow(&(&candidate - 1_u32), &candidate) != BigUint::from(1_u32) {
                candidate += &product;
            }
            candidate
        };
        let modulus = prime(123_457, 3) * prime(987_654, 4);
        assert_eq!(check(&modulus.to_bytes_be()), Err(WeakModulus::Roca));
    }

    #[test]
    fn factors_are_close_within_a_hundred_rounds_and_not_beyond() {
        let first = next_prime(number(512, 5));
        let neighbour = next_prime(&first + 2_u32);
        assert_eq!(
            check(&(&first * &neighbour).to_bytes_be()),
            Err(WeakModulus::CloseFactors)
        );
        assert_eq!(
            check(&(&first * &first).to_bytes_be()),
            Err(WeakModulus::CloseFactors)
        );

        // With factors a + b and a − b, the root of their product lies about b²/2a below a: that many rounds are needed.
        for (rounds, expected) in [(90_u32, Err(WeakModulus::CloseFactors)), (110, Ok(()))] {
            let half_distance = (&first * (2 * rounds)).sqrt();
            let lower = next_prime(&first - &half_distance);
            let upper = next_prime(&first + &half_distance);
            assert_eq!(
                check(&(lower * upper).to_bytes_be()),
                expected,
                "{rounds} rounds"
            );
        }
    }

    #[test]
    fn squares_are_told_from_other_numbers() {
        for root in [0_u32, 1, 2, 3, 255, 4096, 65_537] {
            let square = BigUint::from(root) * root;
            assert!(is_square(&square), "{root}");
            assert!(root < 1 || !is_square(&(square + 2_u32)), "{root}");
        }
    }
}
