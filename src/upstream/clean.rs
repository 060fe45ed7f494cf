//! Questions of our own to a server that nobody uses: resets, checks, settings.

use super::{Expect, Server, TxStatus};
use crate::wire::{HEADER_BYTES, frontend, peek, read, tag::backend as tag};
use std::{io, time::Duration};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Returns everything on the server to what it was after the login (PostgreSQL 8.3 and later).
const RESET: &str = "DISCARD ALL";

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why a server did not answer as it must. It can only be closed, unless it refused or said too much.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection failed.
    #[error("the server connection failed")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("the server did not answer in time")]
    Timeout,
    /// The server is in the middle of something.
    #[error("the server is not idle")]
    Busy,
    /// What came is no answer.
    #[error("the server sent an unexpected message")]
    Protocol,
    /// The rows are more than are read. They are dropped; the server is idle again.
    #[error("the answer is too long")]
    TooLong,
    /// The server answered with an error.
    #[error("the server refused: {message} ({sqlstate})")]
    Refused {
        /// Its code.
        sqlstate: String,
        /// Its message.
        message: String,
    },
}

impl AskError {
    /// Whether the server is lost; what was asked, another one may answer.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Io(_) | Self::Protocol => true,
            Self::Timeout | Self::Busy | Self::TooLong => false,
            Self::Refused { sqlstate, .. } => sqlstate.starts_with("57P"),
        }
    }
}

/// Parameters that the server reported while it answered.
pub type Report = Vec<(Box<str>, Box<str>)>;

/// A row of an answer: text or NULL.
pub(super) type Row = Vec<Option<Box<[u8]>>>;

/// What a server says for the client of the settings that it is given.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Parameters that it reported.
    pub report: Report,
    /// Notices and warnings, as it sent them.
    pub notices: Vec<u8>,
}

/// Everything that a server answered to a question.
#[derive(Default)]
pub(super) struct Answer {
    report: Report,
    notices: Vec<u8>,
    refused: Option<AskError>,
    pub(super) rows: Vec<Row>,
    /// Notifications and changed parameters, as they came: they have nothing to do with the question.
    pub(super) asides: Vec<u8>,
    /// A parameter was reported that only PostgreSQL's configuration can have changed, if the
    /// question changed none.
    pub(super) is_outdated: bool,
    bytes: usize,
}

impl Server {
    /// Runs SQL of our own on an idle server and waits for its end. Rows are dropped.
    ///
    /// # Errors
    /// [`AskError`]; after any but `Refused` the server can only be closed.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn ask(&mut self, sql: &str, timeout: Duration) -> Result<Report, AskError> {
        Ok(self.ask_rows(sql, timeout).await?.report)
    }

    /// The same, and keeps notices.
    ///
    /// # Errors
    /// [`AskError`]; after any but `Refused` the server can only be closed.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn ask_aloud(&mut self, sql: &str, timeout: Duration) -> Result<Said, AskError> {
        let Answer {
            report, notices, ..
        } = self.ask_rows(sql, timeout).await?;
        Ok(Said { report, notices })
    }

    /// The same, and keeps rows and notifications, up to a mebibyte of them.
    ///
    /// # Errors
    /// [`AskError`]; after any but `Refused` the server can only be closed.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub(super) async fn ask_rows(
        &mut self,
        sql: &str,
        timeout: Duration,
    ) -> Result<Answer, AskError> {
        tokio::time::timeout(timeout, self.ask_unbounded(sql))
            .await
            .map_err(|_elapsed| AskError::Timeout)?
    }

    /// The one text that SQL of our own returns.
    pub(super) async fn ask_text(
        &mut self,
        sql: &str,
        timeout: Duration,
    ) -> Result<Box<str>, AskError> {
        let answer = self.ask_rows(sql, timeout).await?;
        let cell = answer.rows.into_iter().flatten().flatten().next();
        let text = String::from_utf8(cell.ok_or(AskError::Protocol)?.into());
        text.map(Into::into).map_err(|_error| AskError::Protocol)
    }

    /// Runs SQL of our own, and returns the notifications and changed parameters that came before it
    /// was answered, as they came.
    ///
    /// # Errors
    /// [`AskError`]; after any but `Refused` the server can only be closed.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn overhear(&mut self, sql: &str, timeout: Duration) -> Result<Vec<u8>, AskError> {
        Ok(self.ask_rows(sql, timeout).await?.asides)
    }

    /// Rolls back, resets what may have been left, and waits for cancels to land.
    ///
    /// # Errors
    /// [`AskError`]: the server can only be closed.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn clean(&mut self, timeout: Duration) -> Result<(), AskError> {
        if !self.replies.is_settled() {
            return Err(AskError::Busy);
        }
        tokio::time::timeout(timeout, self.identity().clone().cancels_landed())
            .await
            .map_err(|_elapsed| AskError::Timeout)?;
        if self.status != TxStatus::Idle {
            // What it undoes of the settings is not tracked: start afresh then.
            let report = self.ask("ROLLBACK", timeout).await?;
            self.is_dirty |= !report.is_empty();
        }
        if self.is_dirty || self.reads_only || self.is_unsurveyed || !self.suspicion.is_empty() {
            self.ask(RESET, timeout).await?;
            self.mark_reset();
        }
        if self.is_clean() {
            Ok(())
        } else {
            Err(AskError::Busy)
        }
    }

    async fn ask_unbounded(&mut self, sql: &str) -> Result<Answer, AskError> {
        if !self.replies.is_settled() {
            return Err(AskError::Busy);
        }
        let mut out = Vec::with_capacity(HEADER_BYTES + sql.len() + 1);
        frontend::query(&mut out, sql);
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        self.unnamed = 0;
        self.replies.push(Expect::Injected);
        let mut answer = Answer::default();
        while !self.replies.is_empty() {
            self.read_message(&mut answer).await?;
        }
        self.replies.take_injected_failed();
        match answer.refused.take() {
            Some(refused) => Err(refused),
            None => Ok(answer),
        }
    }

    async fn read_message(&mut self, answer: &mut Answer) -> Result<(), AskError> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).await?;
        let header = peek(&header).ok().flatten().ok_or(AskError::Protocol)?;
        let body_bytes = header.message_bytes - HEADER_BYTES;
        if header.tag == tag::DATA_ROW && answer.has_no_room_for(body_bytes) {
            return self.skip_row(body_bytes, answer).await;
        }
        answer.bytes += body_bytes;
        if answer.bytes > ANSWER_BYTES_MAX {
            return Err(AskError::Protocol);
        }
        let mut body = vec![0; body_bytes];
        self.stream.read_exact(&mut body).await?;
        match header.tag {
            tag::NOTICE => {
                // What PostgreSQL tells of itself (DEBUG, LOG) would not be the same at a login.
                let severity = read::error_field(&body, b'V').unwrap_or_default();
                if [&b"WARNING"[..], b"NOTICE", b"INFO"].contains(&severity) {
                    frontend::message(&mut answer.notices, tag::NOTICE, &[&body]);
                }
                return Ok(());
            }
            tag::NOTIFICATION => {
                frontend::message(&mut answer.asides, tag::NOTIFICATION, &[&body]);
                return Ok(());
            }
            tag::DATA_ROW => answer.rows.push(row(&body).ok_or(AskError::Protocol)?),
            tag::PARAMETER_STATUS => {
                let (name, value) = read::parameter_status(&body).ok_or(AskError::Protocol)?;
                answer.report.push((name.into(), value.into()));
                // Our own questions may set the path for themselves (it is reported since 18).
                if name != "search_path" {
                    answer.is_outdated = true;
                    frontend::message(&mut answer.asides, tag::PARAMETER_STATUS, &[&body]);
                }
                return Ok(());
            }
            tag::ERROR => answer.refused = Some(refused(&body)),
            tag::READY => {
                let status = body.first().copied().and_then(TxStatus::from_byte);
                self.status = status.ok_or(AskError::Protocol)?;
            }
            _ => {}
        }
        match self.replies.observe(header.tag) {
            super::Verdict::Unexpected => Err(AskError::Protocol),
            _ => Ok(()),
        }
    }

    /// Reads past a row for which there is no room, and drops those that are there.
    async fn skip_row(&mut self, row_bytes: usize, answer: &mut Answer) -> Result<(), AskError> {
        answer.rows = Vec::new();
        answer.bytes = 0;
        answer.refused = Some(AskError::TooLong);
        let mut row = (&mut self.stream).take(row_bytes as u64);
        tokio::io::copy(&mut row, &mut tokio::io::sink()).await?;
        match self.replies.observe(tag::DATA_ROW) {
            super::Verdict::Unexpected => Err(AskError::Protocol),
            _ => Ok(()),
        }
    }
}

impl Answer {
    fn has_no_room_for(&self, row_bytes: usize) -> bool {
        matches!(self.refused, Some(AskError::TooLong))
            || self.bytes.saturating_add(row_bytes) > ANSWER_BYTES_MAX
    }
}

/// The columns of a `DataRow`.
fn row(body: &[u8]) -> Option<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut cells = Vec::with_capacity(usize::from(u16::from_be_bytes(*count)));
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        rest = tail;
        // -1 is NULL.
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) => {
                cells.push(Some(rest.get(..length)?.into()));
                rest = rest.get(length..)?;
            }
            Err(_) => cells.push(None),
        }
    }
    Some(cells)
}

fn refused(body: &[u8]) -> AskError {
    let field = |kind| {
        String::from_utf8_lossy(read::error_field(body, kind).unwrap_or_default()).into_owned()
    };
    AskError::Refused {
        sqlstate: field(b'C'),
        message: field(b'M'),
    }
}
