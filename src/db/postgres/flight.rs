//! Statements that go to the server at once.
//!
//! Each round trip wakes four threads, and the server is a network away. So a statement whose
//! answer nobody needs waits for the next one that is asked. The server runs them one after the
//! other, as if each had been waited for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error, Statement};

/// A parameter of a statement.
pub(super) type SqlParameter<'p> = &'p (dyn ToSql + Sync);

/// The answer to a statement. `None` if nobody needs it.
pub(super) type ServerAnswer<'f, T> = Pin<Box<dyn Future<Output = Result<Option<T>, Error>> + 'f>>;

/// A statement that goes out with the next one that is asked.
pub(super) enum Unsent {
    Text(String),
    Prepared(Statement, Vec<EncodedParameter>),
    /// It is not kept prepared.
    Once(String, Vec<(EncodedParameter, Type)>),
}

impl Unsent {
    /// A statement with the values that its parameters have now.
    pub(super) fn prepared(statement: Statement, parameters: &[SqlParameter<'_>]) -> Result<Self, crate::db::Error> {
        let types = statement.params().iter();
        let encoded = types.zip(parameters).map(|(of, value)| EncodedParameter::of(*value, of));
        let encoded = encoded.collect::<Result<_, _>>().map_err(crate::db::Error::Statement)?;
        Ok(Self::Prepared(statement, encoded))
    }

    /// The same for a statement that runs once.
    pub(super) fn once(sql: &str, parameters: &[(SqlParameter<'_>, Type)]) -> Result<Self, crate::db::Error> {
        let encoded = parameters.iter().map(|(value, of)| Ok((EncodedParameter::of(*value, of)?, of.clone())));
        let encoded = encoded.collect::<Result<_, _>>().map_err(crate::db::Error::Statement)?;
        Ok(Self::Once(sql.to_owned(), encoded))
    }

    pub(super) fn send<'f, T: 'f>(&'f self, client: &'f Client) -> ServerAnswer<'f, T> {
        Box::pin(async move {
            match self {
                Self::Text(sql) => client.batch_execute(sql).await?,
                Self::Prepared(statement, parameters) => {
                    client.execute_raw(statement, parameters).await?;
                }
                Self::Once(sql, parameters) => {
                    let typed: Vec<_> =
                        parameters.iter().map(|(value, of)| (value as SqlParameter<'_>, of.clone())).collect();
                    client.execute_typed(sql, &typed).await?;
                }
            }
            Ok(None)
        })
    }
}

/// A value as it goes over the wire.
#[derive(Debug)]
pub(super) struct EncodedParameter(Option<BytesMut>);

type EncodingError = Box<dyn std::error::Error + Sync + Send>;

impl EncodedParameter {
    fn of(value: SqlParameter<'_>, of: &Type) -> Result<Self, EncodingError> {
        let mut bytes = BytesMut::new();
        Ok(match value.to_sql_checked(of, &mut bytes)? {
            IsNull::Yes => Self(None),
            IsNull::No => Self(Some(bytes)),
        })
    }
}

impl ToSql for EncodedParameter {
    fn to_sql(&self, _type: &Type, out: &mut BytesMut) -> Result<IsNull, EncodingError> {
        let Some(bytes) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_type: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// Sends all statements, and then waits for their answers in this order. The first failure ends it.
pub(super) async fn all_at_once<T>(answers: Vec<ServerAnswer<'_, T>>) -> Result<Vec<T>, Error> {
    // The driver sends a statement when its answer is polled for the first time.
    let mut sending = Context::from_waker(Waker::noop());
    let sent: Vec<_> = answers
        .into_iter()
        .map(|mut answer| match answer.as_mut().poll(&mut sending) {
            Poll::Ready(done) => Err(done),
            Poll::Pending => Ok(answer),
        })
        .collect();
    let mut needed = Vec::new();
    for answer in sent {
        needed.extend(match answer {
            Ok(answer) => answer.await?,
            Err(done) => done?,
        });
    }
    Ok(needed)
}
