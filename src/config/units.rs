//! Values with a unit, and values that must not be seen, as they stand in the file.

use super::Micros;
use crate::tenant::Secret;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, time::Duration};

/// The longest time that can be written. Anything longer is a mistake, and sums stay far from
/// overflow.
const PERIOD_MAX: Duration = Duration::from_hours(8760);

/// A time, written `"500ms"`, `"15s"`, `"10m"`, `"1h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period(pub(crate) Duration);

impl Period {
    /// The time as a limit: `"0s"` is none.
    pub(crate) fn limit(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Period;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit, such as \"15s\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Period, E> {
                match humantime::parse_duration(text) {
                    Ok(time) if time <= PERIOD_MAX => Ok(Period(time)),
                    Ok(_) => Err(E::custom(format_args!(
                        "{text:?} is too long; at most \"365d\" is allowed"
                    ))),
                    Err(_) => Err(E::custom(format_args!(
                        "{text:?} is not a time; write it with its unit, such as \"500ms\", \"15s\", \"10m\" or \"1h\""
                    ))),
                }
            }
        }
        input.deserialize_str(Visitor)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(&humantime::format_duration(self.0))
    }
}

/// A price or quantity with at most six decimals, written as a number or, with as many digits as one likes
/// to be sure of, as a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Price(pub(crate) Micros);

impl<'de> Deserialize<'de> for Price {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl Visitor {
            fn read<E: de::Error>(text: &str) -> Result<Price, E> {
                Micros::parse(text).map(Price).ok_or_else(|| {
                    E::custom(format_args!(
                        "{text} is not allowed; write 0 to 1000000000 with at most six decimals, such as 0.25"
                    ))
                })
            }
        }
        impl de::Visitor<'_> for Visitor {
            type Value = Price;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number such as 0.25")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Price, E> {
                Self::read(&number.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Price, E> {
                Self::read(&number.to_string())
            }

            // The shortest digits that mean this number are those that were written, as long as they are no
            // more than 15: with six decimals and up to a billion they are.
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Price, E> {
                Self::read(&number.to_string())
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Price, E> {
                Self::read(text)
            }
        }
        input.deserialize_any(Visitor)
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(output)
    }
}

/// A text that is printed as `[redacted]`, also in the message that it is no text.
#[derive(Debug, Clone)]
pub(crate) struct SecretText(pub(crate) Secret);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl Visitor {
            fn refuse<T, E: de::Error>() -> Result<T, E> {
                Err(E::custom("the value must be a text in quotes"))
            }
        }
        impl de::Visitor<'_> for Visitor {
            type Value = SecretText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretText, E> {
                Ok(SecretText(Secret::new(text.to_owned())))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<SecretText, E> {
                Ok(SecretText(Secret::new(text)))
            }

            // serde's own messages would show the value.
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretText, E> {
                Self::refuse()
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretText, E> {
                Self::refuse()
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<SecretText, E> {
                Self::refuse()
            }

            fn visit_i128<E: de::Error>(self, _: i128) -> Result<SecretText, E> {
                Self::refuse()
            }

            fn visit_u128<E: de::Error>(self, _: u128) -> Result<SecretText, E> {
                Self::refuse()
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretText, E> {
                Self::refuse()
            }
        }
        input.deserialize_string(Visitor)
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str("[redacted]")
    }
}

/// One text or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OneOrMore(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = OneOrMore;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore(vec![text.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMore, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(OneOrMore(texts))
            }
        }
        input.deserialize_any(Visitor)
    }
}

impl Serialize for OneOrMore {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => output.serialize_str(one),
            list => list.serialize(output),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder<T> {
        value: T,
    }

    fn read<T: de::DeserializeOwned>(text: &str) -> Result<T, String> {
        toml::from_str::<Holder<T>>(&format!("value = {text}"))
            .map(|holder| holder.value)
            .map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_time_needs_a_unit_and_has_an_end() {
        for (text, milliseconds) in [
            ("\"500ms\"", 500),
            ("\"15s\"", 15_000),
            ("\"1h 30m\"", 5_400_000),
            ("\"0s\"", 0),
        ] {
            let time: Period = read(text).unwrap();
            assert_eq!(time.0, Duration::from_millis(milliseconds), "{text}");
        }
        assert_eq!(read::<Period>("\"0s\"").unwrap().limit(), None);
        for (text, says) in [
            ("\"15\"", "\"15\" is not a time"),
            ("15", "such as \"15s\""),
            ("\"soon\"", "is not a time"),
            ("\"2000d\"", "at most \"365d\""),
        ] {
            let message = read::<Period>(text).unwrap_err();
            assert!(message.contains(says), "{text}: {message}");
        }
    }

    #[test]
    fn a_secret_of_the_wrong_type_stays_out_of_the_message() {
        for text in ["482913", "true", "482.913", "99999999999999999"] {
            let message = read::<SecretText>(text).unwrap_err();
            assert!(!message.contains(text), "{message}");
            assert!(message.contains("text in quotes"), "{message}");
        }
        for text in ["[482913]", "{ a = 482913 }", "2024-01-01"] {
            let message = read::<SecretText>(text).unwrap_err();
            assert!(
                !message.contains("482913") && !message.contains("2024"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_price_is_what_its_digits_say() {
        for (text, shown) in [
            ("0.1", "0.10"),
            ("0.2", "0.20"),
            ("3", "3.00"),
            ("0.000001", "0.000001"),
            ("1e-6", "0.000001"),
            ("999999999.999999", "999999999.999999"),
            ("123456789.012345", "123456789.012345"),
            ("\"0.3\"", "0.30"),
        ] {
            let Price(price) = read(text).unwrap();
            assert_eq!(price.to_string(), shown, "{text}");
        }
        for wrong in [
            "-1",
            "-0.5",
            "0.0000001",
            "1e10",
            "nan",
            "inf",
            "\"1e3\"",
            "true",
        ] {
            let message = read::<Price>(wrong).unwrap_err();
            assert!(message.contains("0.25"), "{wrong}: {message}");
        }
    }

    #[test]
    fn one_text_stands_for_a_list_of_one() {
        assert_eq!(read::<OneOrMore>("\"a\"").unwrap().0, ["a"]);
        assert_eq!(read::<OneOrMore>("[\"a\", \"b\"]").unwrap().0, ["a", "b"]);
    }
}
