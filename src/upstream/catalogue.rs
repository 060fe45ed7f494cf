//! What the names in a tenant's statements are, by PostgreSQL's own account.

use super::{AskError, Server, clean::Row};
use crate::routing::{
    Builtins, Catalogue, CatalogueError, Fact, Reach, SIGHT, Sight, builtins_sql, catalogue_sql,
};
use std::{sync::Arc, time::Duration};

/// How long a server may take to tell.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug)]
pub struct CatalogueAsk<'a, K, L> {
    /// The number of the catalogue: higher than that of each before.
    pub generation: u64,
    /// Which part of the database is the tenant's.
    pub reach: Reach,
    /// Schemas whose functions are what they say they are.
    pub trusted: &'a [&'a str],
    /// What comes with PostgreSQL, where it is known already.
    pub known: K,
    /// Takes it where it was not.
    pub learn: L,
}

impl Server {
    /// Asks an idle server what the names in statements are. Also returns the notifications and
    /// changed parameters that came meanwhile. What is too much, or can't be read, is unknown.
    ///
    /// # Errors
    /// [`AskError`]; after any but `Refused` the server can only be closed.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the server when the future is dropped.
    pub async fn catalogue<K, L>(
        &mut self,
        ask: CatalogueAsk<'_, K, L>,
    ) -> Result<(Catalogue, Vec<u8>), AskError>
    where
        K: FnOnce(Sight) -> Option<Arc<Builtins>> + Send,
        L: FnOnce(Sight, &Arc<Builtins>) + Send,
    {
        let mut asides = Vec::new();
        let rows = self.rows_of(SIGHT, &mut asides).await?;
        let sees = |at: usize| {
            let cell = rows.first().and_then(|row| row.get(at)?.as_deref());
            cell == Some(b"t")
        };
        let sight = Sight {
            views: sees(0),
            policies: sees(1),
        };
        let builtins = if let Some(known) = (ask.known)(sight) {
            known
        } else {
            let rows = self.rows_of(&builtins_sql(sight), &mut asides).await?;
            let Ok(read) = Builtins::new(facts(&rows)).map(Arc::new) else {
                return Ok((Catalogue::unknown(), asides));
            };
            (ask.learn)(sight, &read);
            read
        };
        let question = catalogue_sql(&builtins, ask.reach, sight, ask.trusted);
        let rows = match self.rows_of(&question, &mut asides).await {
            Ok(rows) => rows,
            Err(AskError::TooLong) => return Ok((Catalogue::unknown(), asides)),
            Err(error) => return Err(error),
        };
        let read = Catalogue::new(ask.generation, builtins, facts(&rows));
        Ok((read.unwrap_or_else(|_error| Catalogue::unknown()), asides))
    }

    async fn rows_of(&mut self, sql: &str, asides: &mut Vec<u8>) -> Result<Vec<Row>, AskError> {
        let answer = self.ask_rows(sql, TIMEOUT).await?;
        asides.extend(answer.asides);
        self.is_outdated |= answer.is_outdated;
        Ok(answer.rows)
    }
}

fn facts(rows: &[Row]) -> impl Iterator<Item = Result<Fact<'_>, CatalogueError>> {
    rows.iter().map(|row| {
        let column = |at: usize| row.get(at).and_then(|cell| cell.as_deref());
        Fact::from_columns([column(0), column(1), column(2), column(3)])
    })
}
