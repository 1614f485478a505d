//! Tokens: what is kept of them is their hash.

use cachevault_catalog::{
    CatalogError, FoundToken, PasswordHash, TOKEN_CHAIN_MAX, TOKENS_OF_USER_MAX,
};
use cachevault_domain::{Grant, SignIn, Token, TokenHash, TokenScope, UserId};
use jiff::Timestamp;
use sqlx::{FromRow, SqliteConnection};

use crate::row::RowOf;
use crate::{unavailable, users};

const DOMAIN: &str = "domain";
const PROJECT: &str = "project";
const UNSCOPED: &str = "unscoped";

#[derive(FromRow)]
struct TokenRow {
    scope: String,
    project_id: Option<String>,
    sign_in: String,
    issued_at: i64,
    expires_at: i64,
    #[sqlx(flatten)]
    user: users::UserRow,
}

pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    token: &Token,
    password: &PasswordHash,
    parent: Option<&TokenHash>,
    forget_before: Timestamp,
) -> Result<(), CatalogError> {
    make_room(tx, &token.user, forget_before).await?;
    if let Some(parent) = parent
        && chain_length(tx, parent).await? >= TOKEN_CHAIN_MAX
    {
        return Err(CatalogError::TokenChain);
    }
    let (scope, project) = match &token.scope {
        TokenScope::Project(project) => (PROJECT, Some(project.as_str())),
        TokenScope::Domain => (DOMAIN, None),
        TokenScope::Unscoped => (UNSCOPED, None),
    };
    let inserted = sqlx::query(
        "INSERT INTO tokens
             (hash, user_id, scope, project_id, sign_in, issued_at, expires_at, parent)
         SELECT ?1, id, ?3, ?4, ?5, ?6, ?7, ?9 FROM users WHERE id = ?2 AND password = ?8 AND enabled
             AND (?9 IS NULL OR EXISTS (SELECT 1 FROM tokens WHERE hash = ?9))",
    )
    .bind(&token.hash.0[..])
    .bind(token.user.as_str())
    .bind(scope)
    .bind(project)
    .bind(token.sign_in.as_str())
    .bind(token.issued_at.as_microsecond())
    .bind(token.expires_at.as_microsecond())
    .bind(&password.0)
    .bind(parent.map(|parent| &parent.0[..]))
    .execute(tx)
    .await
    .map_err(unavailable)?;
    if inserted.rows_affected() == 0 { Err(CatalogError::NotFound("user")) } else { Ok(()) }
}

/// Removes the tokens that are over for long, and the oldest of a user that has as many as it may.
async fn make_room(
    tx: &mut SqliteConnection,
    user: &UserId,
    forget_before: Timestamp,
) -> Result<(), CatalogError> {
    sqlx::query("DELETE FROM tokens WHERE expires_at < ?")
        .bind(forget_before.as_microsecond())
        .execute(&mut *tx)
        .await
        .map_err(unavailable)?;
    // Rows are numbered as they come: clocks may go back.
    sqlx::query(
        "DELETE FROM tokens WHERE user_id = ?1 AND rowid NOT IN
             (SELECT rowid FROM tokens WHERE user_id = ?1 ORDER BY rowid DESC LIMIT ?2)",
    )
    .bind(user.as_str())
    .bind(i64::from(TOKENS_OF_USER_MAX - 1))
    .execute(tx)
    .await
    .map_err(unavailable)?;
    Ok(())
}

/// How many tokens lead to this one, itself included.
async fn chain_length(tx: &mut SqliteConnection, last: &TokenHash) -> Result<u32, CatalogError> {
    sqlx::query_scalar(
        "WITH RECURSIVE chain (parent) AS (
             SELECT parent FROM tokens WHERE hash = ?
             UNION ALL SELECT t.parent FROM tokens t JOIN chain ON t.hash = chain.parent
             LIMIT ?
         ) SELECT count(*) FROM chain",
    )
    .bind(&last.0[..])
    .bind(i64::from(TOKEN_CHAIN_MAX))
    .fetch_one(tx)
    .await
    .map_err(unavailable)
}

pub(crate) async fn find(
    tx: &mut SqliteConnection,
    hash: &TokenHash,
) -> Result<Option<FoundToken>, CatalogError> {
    let row: Option<TokenRow> = sqlx::query_as(
        "SELECT t.scope, t.project_id, t.sign_in, t.issued_at, t.expires_at,
             u.id, u.name, u.password, u.enabled, u.administers_service, u.created_at
         FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.hash = ?",
    )
    .bind(&hash.0[..])
    .fetch_optional(&mut *tx)
    .await
    .map_err(unavailable)?;
    let Some(found) = row else { return Ok(None) };
    let (user, _) = found.user.user()?;
    let row = RowOf { table: "tokens", key: user.id.as_str() };
    let scope = match (found.scope.as_str(), &found.project_id) {
        (PROJECT, Some(project)) => TokenScope::Project(row.parse(project)?),
        (DOMAIN, None) => TokenScope::Domain,
        (UNSCOPED, None) => TokenScope::Unscoped,
        _ => return Err(row.corrupt(format!("unknown scope `{}`", found.scope))),
    };
    let grant: Option<Grant> = match &scope {
        TokenScope::Project(project) => users::grants(tx, &user.id, Some(project)).await?.pop(),
        TokenScope::Domain | TokenScope::Unscoped => None,
    };
    let token = Token {
        hash: hash.clone(),
        user: user.id.clone(),
        scope,
        sign_in: row.named(&SignIn::ALL, SignIn::as_str, &found.sign_in)?,
        issued_at: row.moment(found.issued_at)?,
        expires_at: row.moment(found.expires_at)?,
    };
    Ok(Some(FoundToken { token, user, grant }))
}

pub(crate) async fn revoke(
    tx: &mut SqliteConnection,
    hash: &TokenHash,
) -> Result<bool, CatalogError> {
    let removed = sqlx::query("DELETE FROM tokens WHERE hash = ?")
        .bind(&hash.0[..])
        .execute(tx)
        .await
        .map_err(unavailable)?;
    Ok(removed.rows_affected() > 0)
}
