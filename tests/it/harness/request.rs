//! Messages that a client sends, byte by byte as the protocol has them.

/// A run of messages, written in one go.
#[derive(Clone, Default)]
pub struct Request(Vec<u8>);

impl Request {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Any message: type, length, body.
    pub fn message(mut self, tag: u8, body: &[u8]) -> Self {
        let length = i32::try_from(body.len() + 4).expect("a body below 2 GB");
        self.0.push(tag);
        self.0.extend(length.to_be_bytes());
        self.0.extend(body);
        self
    }

    /// Any bytes.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Everything of another request.
    pub fn then(self, other: &Self) -> Self {
        self.raw(&other.0)
    }

    /// `Query`.
    pub fn query(self, sql: &str) -> Self {
        self.message(b'Q', &c_strings(&[sql]))
    }

    /// `Parse` without parameter types.
    pub fn parse(self, name: &str, sql: &str) -> Self {
        self.parse_typed(name, sql, &[])
    }

    /// `Parse` with the parameters' types.
    pub fn parse_typed(self, name: &str, sql: &str, types: &[u32]) -> Self {
        let mut body = c_strings(&[name, sql]);
        body.extend(u16::try_from(types.len()).unwrap().to_be_bytes());
        for oid in types {
            body.extend(oid.to_be_bytes());
        }
        self.message(b'P', &body)
    }

    /// `Bind` with text parameters and text results.
    pub fn bind(self, portal: &str, statement: &str, parameters: &[&str]) -> Self {
        let values: Vec<_> = parameters
            .iter()
            .map(|text| Some(text.as_bytes()))
            .collect();
        self.bind_formats(portal, statement, (&[], &values, &[]))
    }

    /// `Bind` with parameter formats, parameters (`None` is NULL) and result formats.
    pub fn bind_formats(self, portal: &str, statement: &str, values: BindValues<'_>) -> Self {
        let (formats, parameters, results) = values;
        let mut body = c_strings(&[portal, statement]);
        let put_count = |body: &mut Vec<u8>, count: usize| {
            body.extend(u16::try_from(count).unwrap().to_be_bytes());
        };
        put_count(&mut body, formats.len());
        for format in formats {
            body.extend(format.to_be_bytes());
        }
        put_count(&mut body, parameters.len());
        for parameter in parameters {
            let length = parameter.map_or(-1, |value| i32::try_from(value.len()).unwrap());
            body.extend(length.to_be_bytes());
            body.extend(parameter.unwrap_or_default());
        }
        put_count(&mut body, results.len());
        for format in results {
            body.extend(format.to_be_bytes());
        }
        self.message(b'B', &body)
    }

    /// `Describe` of a statement.
    pub fn describe_statement(self, name: &str) -> Self {
        self.message(b'D', &named(b'S', name))
    }

    /// `Describe` of a portal.
    pub fn describe_portal(self, name: &str) -> Self {
        self.message(b'D', &named(b'P', name))
    }

    /// `Execute` for all rows.
    pub fn execute(self, portal: &str) -> Self {
        self.execute_some(portal, 0)
    }

    /// `Execute` for at most so many rows.
    pub fn execute_some(self, portal: &str, max_rows: i32) -> Self {
        let mut body = c_strings(&[portal]);
        body.extend(max_rows.to_be_bytes());
        self.message(b'E', &body)
    }

    /// `Close` of a statement.
    pub fn close_statement(self, name: &str) -> Self {
        self.message(b'C', &named(b'S', name))
    }

    /// `Close` of a portal.
    pub fn close_portal(self, name: &str) -> Self {
        self.message(b'C', &named(b'P', name))
    }

    /// `Flush`.
    pub fn flush(self) -> Self {
        self.message(b'H', &[])
    }

    /// `Sync`.
    pub fn sync(self) -> Self {
        self.message(b'S', &[])
    }

    /// `Parse`, `Bind`, `Execute` of the unnamed statement.
    pub fn run(self, sql: &str, parameters: &[&str]) -> Self {
        self.parse("", sql).bind("", "", parameters).execute("")
    }

    /// `Bind` and `Execute` of a named statement.
    pub fn run_prepared(self, statement: &str, parameters: &[&str]) -> Self {
        self.bind("", statement, parameters).execute("")
    }

    /// `CopyData`.
    pub fn copy_data(self, data: &[u8]) -> Self {
        self.message(b'd', data)
    }

    /// `CopyDone`.
    pub fn copy_done(self) -> Self {
        self.message(b'c', &[])
    }

    /// `CopyFail`.
    pub fn copy_fail(self, reason: &str) -> Self {
        self.message(b'f', &c_strings(&[reason]))
    }

    /// `FunctionCall` with text arguments and a text result.
    pub fn function_call(self, oid: u32, arguments: &[&str]) -> Self {
        let mut body = oid.to_be_bytes().to_vec();
        body.extend(0_u16.to_be_bytes());
        body.extend(u16::try_from(arguments.len()).unwrap().to_be_bytes());
        for argument in arguments {
            body.extend(i32::try_from(argument.len()).unwrap().to_be_bytes());
            body.extend(argument.as_bytes());
        }
        body.extend(0_u16.to_be_bytes());
        self.message(b'F', &body)
    }

    /// `Terminate`.
    pub fn terminate(self) -> Self {
        self.message(b'X', &[])
    }
}

/// Parameter formats, parameters and result formats of a `Bind`.
pub type BindValues<'a> = (&'a [u16], &'a [Option<&'a [u8]>], &'a [u16]);

/// Strings, each with its NUL.
pub fn c_strings(texts: &[&str]) -> Vec<u8> {
    texts
        .iter()
        .flat_map(|text| text.bytes().chain([0]))
        .collect()
}

fn named(kind: u8, name: &str) -> Vec<u8> {
    let mut body = vec![kind];
    body.extend(c_strings(&[name]));
    body
}

/// A packet of the time before the login: length and body, no type.
pub fn untyped(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len() + 4).expect("a body below 2 GB");
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

/// `StartupMessage`.
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(c_strings(&[name, value]));
    }
    body.push(0);
    untyped(&body)
}

/// `SSLRequest`.
pub fn ssl_request() -> Vec<u8> {
    untyped(&80_877_103_u32.to_be_bytes())
}

/// `GSSENCRequest`.
pub fn gss_request() -> Vec<u8> {
    untyped(&80_877_104_u32.to_be_bytes())
}

/// `CancelRequest`.
pub fn cancel_request(pid: i32, secret: &[u8]) -> Vec<u8> {
    let mut body = 80_877_102_u32.to_be_bytes().to_vec();
    body.extend(pid.to_be_bytes());
    body.extend(secret);
    untyped(&body)
}
