//! Projects, users, and what they prove themselves with.

use cachevault_domain::{
    AccessKey, AccessPolicy, Action, ActionPattern, BuiltInRole, Credential, Page, Permissions,
    Project, SealedSecret, SignIn, Token, TokenHash, TokenScope, User, UserId,
};

use super::{ALL, Numbered, at, project};
use crate::{
    Catalog, CatalogError, CredentialChanges, KeyHolder, PasswordHash, ProjectChanges,
    ProjectFilter, StoredCredential, TOKEN_CHAIN_MAX, TOKENS_OF_USER_MAX, UserChanges, UserKey,
};

fn named(n: u8, name: &str) -> Project {
    Project { id: project(n), name: name.parse().unwrap(), enabled: true, created_at: at(0) }
}

fn credential(n: u8) -> StoredCredential {
    let credential = Credential {
        access_key: AccessKey::mint(&Numbered(n)),
        project: project(n),
        role: BuiltInRole::Admin.into(),
        user: None,
        description: Some("für die Nacht 🌙".parse().unwrap()),
        enabled: true,
        administers_service: n == 1,
        created_at: at(i64::from(n)),
        expires_at: None,
    };
    StoredCredential { credential, secret: SealedSecret(vec![n; 40]) }
}

fn key(n: u8) -> AccessKey {
    credential(n).credential.access_key
}

/// A credential of project 1 that differs from [`credential`].
fn other(n: u8, change: impl FnOnce(&mut Credential)) -> StoredCredential {
    let mut other = credential(n);
    other.credential.project = project(1);
    change(&mut other.credential);
    other
}

fn user_id(n: u8) -> UserId {
    UserId::mint(&Numbered(n))
}

fn user(n: u8, name: &str) -> User {
    User {
        id: user_id(n),
        name: name.parse().unwrap(),
        enabled: true,
        administers_service: n == 1,
        created_at: at(i64::from(n)),
    }
}

fn password(n: u8) -> PasswordHash {
    PasswordHash(format!("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ${n}"))
}

fn policy(name: &str, actions: &[&str]) -> AccessPolicy {
    AccessPolicy {
        project: project(1),
        name: name.parse().unwrap(),
        actions: patterns(actions),
        created_at: at(1),
        updated_at: at(1),
    }
}

fn patterns(actions: &[&str]) -> Vec<ActionPattern> {
    actions.iter().map(|action| action.parse().unwrap()).collect()
}

fn token(n: u8, scope: TokenScope) -> Token {
    Token {
        hash: TokenHash([n; 32]),
        user: user_id(1),
        scope,
        sign_in: SignIn::Password,
        issued_at: at(10),
        expires_at: at(100),
    }
}

/// Creates project `n` with the key of the same number.
pub(super) async fn open_project(catalog: &impl Catalog, n: u8) {
    let name = format!("project-{n}");
    catalog.create_project(&named(n, &name), Some(&credential(n))).await.unwrap();
}

/// A catalog with project 1 and user 1, who is a reader there.
async fn with_reader(catalog: &impl Catalog) {
    open_project(catalog, 1).await;
    catalog.create_user(&user(1, "jane"), &password(1)).await.unwrap();
    catalog.set_grant(&user_id(1), &project(1), &BuiltInRole::Reader.into()).await.unwrap();
}

async fn holder(catalog: &impl Catalog, n: u8) -> KeyHolder {
    catalog.find_credential(&key(n)).await.unwrap().unwrap()
}

fn is_taken<T: std::fmt::Debug>(outcome: Result<T, CatalogError>, expected: &str) {
    match outcome {
        Err(CatalogError::Taken(what)) => assert_eq!(what, expected),
        other => panic!("{other:?}"),
    }
}

fn is_missing<T: std::fmt::Debug>(outcome: Result<T, CatalogError>, expected: &str) {
    match outcome {
        Err(CatalogError::NotFound(what)) => assert_eq!(what, expected),
        other => panic!("{other:?}"),
    }
}

pub async fn a_project_and_its_credential_are_found_again(catalog: &impl Catalog) {
    assert!(!catalog.has_projects().await.unwrap());
    open_project(catalog, 1).await;
    assert!(catalog.has_projects().await.unwrap());
    assert_eq!(holder(catalog, 1).await.stored, credential(1));
    assert_eq!(catalog.find_credential(&key(2)).await.unwrap(), None);
    catalog.check().await.unwrap();
}

pub async fn a_project_is_created_once(catalog: &impl Catalog) {
    open_project(catalog, 1).await;
    is_taken(catalog.create_project(&named(1, "another"), None).await, "project id");
    let stolen = StoredCredential {
        credential: Credential { project: project(2), ..credential(1).credential },
        ..credential(1)
    };
    let again = catalog.create_project(&named(2, "two"), Some(&stolen)).await;
    is_taken(again, "access key");
    let filter = ProjectFilter { id: Some(project(2)), name: None };
    assert_eq!(catalog.list_projects(&filter, ALL).await.unwrap().total, 0);
}

pub async fn a_second_key_opens_the_same_project(catalog: &impl Catalog) {
    open_project(catalog, 1).await;
    let second = other(2, |_| ());
    catalog.add_credential(&second).await.unwrap();
    for (n, stored) in [(1, credential(1)), (2, second.clone())] {
        assert_eq!(holder(catalog, n).await.stored, stored);
    }
    is_taken(catalog.add_credential(&second).await, "access key");
    is_missing(catalog.add_credential(&credential(3)).await, "project");
}

pub async fn a_project_is_named_once_and_found_by_its_name(catalog: &impl Catalog) {
    for (n, name) in [(1, "bravo"), (2, "alpha")] {
        catalog.create_project(&named(n, name), None).await.unwrap();
    }
    is_taken(catalog.create_project(&named(3, "alpha"), None).await, "project name");
    let all = catalog.list_projects(&ProjectFilter::default(), ALL).await.unwrap();
    assert_eq!((all.items, all.total), (vec![named(2, "alpha"), named(1, "bravo")], 2));
    let page = Page { offset: 1, limit: 1 };
    let second = catalog.list_projects(&ProjectFilter::default(), page).await.unwrap();
    assert_eq!((second.items, second.total), (vec![named(1, "bravo")], 2));
    let by_name = ProjectFilter { id: None, name: Some("alpha".into()) };
    let found = catalog.list_projects(&by_name, ALL).await.unwrap();
    assert_eq!((found.items, found.total), (vec![named(2, "alpha")], 1));

    let rename = |name: &str| ProjectChanges { name: Some(name.parse().unwrap()), enabled: None };
    is_taken(catalog.update_project(&project(1), &rename("alpha")).await, "project name");
    is_missing(catalog.update_project(&project(9), &rename("nine")).await, "project");
    let changes = ProjectChanges { enabled: Some(false), ..rename("charlie") };
    catalog.update_project(&project(1), &changes).await.unwrap();
    let by_id = ProjectFilter { id: Some(project(1)), name: None };
    let found = catalog.list_projects(&by_id, ALL).await.unwrap().items;
    assert_eq!(found, [Project { enabled: false, ..named(1, "charlie") }]);
}

pub async fn a_credential_reads_back_with_what_it_opens(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let admin = holder(catalog, 1).await;
    assert_eq!(admin.permissions, Permissions::everything());
    assert!(admin.project_enabled && admin.user_may);
    catalog.create_policy(&policy("nightly", &["dcs:instance:backupData"])).await.unwrap();
    let limited = other(2, |credential| {
        credential.role = "nightly".parse().unwrap();
        credential.enabled = false;
        credential.expires_at = Some(at(50));
        credential.description = None;
        credential.user = Some(user(1, "jane").reference());
    });
    catalog.add_credential(&limited).await.unwrap();
    assert_eq!(holder(catalog, 2).await.stored, limited);
    let disable = ProjectChanges { enabled: Some(false), name: None };
    catalog.update_project(&project(1), &disable).await.unwrap();
    assert!(!holder(catalog, 1).await.project_enabled);
}

pub async fn a_credential_is_changed_listed_and_removed(catalog: &impl Catalog) {
    open_project(catalog, 1).await;
    open_project(catalog, 3).await;
    let second = other(2, |_| ());
    catalog.add_credential(&second).await.unwrap();
    let changes = CredentialChanges {
        role: Some(BuiltInRole::Reader.into()),
        description: Some(None),
        enabled: Some(false),
        expires_at: Some(Some(at(70))),
    };
    catalog.update_credential(&key(2), &changes).await.unwrap();
    let changed = other(2, |credential| {
        credential.role = BuiltInRole::Reader.into();
        credential.description = None;
        credential.enabled = false;
        credential.expires_at = Some(at(70));
    });
    catalog.update_credential(&key(2), &CredentialChanges::default()).await.unwrap();
    let listed = catalog.list_credentials(&project(1), ALL).await.unwrap();
    assert_eq!(listed.items, [credential(1).credential, changed.credential]);
    assert_eq!(listed.total, 2);
    let forever = CredentialChanges { expires_at: Some(None), ..CredentialChanges::default() };
    catalog.update_credential(&key(2), &forever).await.unwrap();
    assert_eq!(holder(catalog, 2).await.stored.credential.expires_at, None);
    is_missing(catalog.update_credential(&key(9), &changes).await, "credential");
    let nowhere = CredentialChanges {
        role: Some("nowhere".parse().unwrap()),
        ..CredentialChanges::default()
    };
    is_missing(catalog.update_credential(&key(2), &nowhere).await, "role");

    catalog.remove_credential(&key(2)).await.unwrap();
    is_missing(catalog.remove_credential(&key(2)).await, "credential");
    assert_eq!(catalog.find_credential(&key(2)).await.unwrap(), None);
    assert_eq!(catalog.list_credentials(&project(1), ALL).await.unwrap().total, 1);
}

pub async fn a_rotated_credential_ends_when_it_was_said(catalog: &impl Catalog) {
    open_project(catalog, 1).await;
    let ends = |n| async move { holder(catalog, n).await.stored.credential.expires_at };
    catalog.rotate_credential(&key(1), None, &other(2, |_| ())).await.unwrap();
    assert_eq!((ends(1).await, ends(2).await), (None, None));
    catalog.rotate_credential(&key(1), Some(at(60)), &other(3, |_| ())).await.unwrap();
    assert_eq!((ends(1).await, ends(3).await), (Some(at(60)), None));
    for later in [None, Some(at(90))] {
        let n = later.map_or(4, |_| 5);
        catalog.rotate_credential(&key(1), later, &other(n, |_| ())).await.unwrap();
        assert_eq!(ends(1).await, Some(at(60)));
    }
    is_missing(catalog.rotate_credential(&key(9), None, &other(6, |_| ())).await, "credential");
    is_taken(
        catalog.rotate_credential(&key(2), Some(at(1)), &other(3, |_| ())).await,
        "access key",
    );
    // Nothing of what failed has stayed.
    assert_eq!(ends(2).await, None);
    assert_eq!(catalog.find_credential(&key(6)).await.unwrap(), None);
}

pub async fn a_credential_needs_its_role_and_its_user(catalog: &impl Catalog) {
    with_reader(catalog).await;
    open_project(catalog, 2).await;
    catalog.create_user(&user(2, "john"), &password(2)).await.unwrap();
    let roleless = other(3, |credential| credential.role = "nowhere".parse().unwrap());
    is_missing(catalog.add_credential(&roleless).await, "role");
    for user in [user(2, "john"), user(9, "nobody")] {
        let strange = other(3, |credential| credential.user = Some(user.reference()));
        is_missing(catalog.add_credential(&strange).await, "user");
    }
}

pub async fn a_project_administers_the_service_while_it_has_a_key_that_does(
    catalog: &impl Catalog,
) {
    open_project(catalog, 1).await;
    open_project(catalog, 2).await;
    let administers = async |n| catalog.administers_service(&project(n)).await.unwrap();
    assert!(administers(1).await && !administers(2).await && !administers(3).await);
    let disable = CredentialChanges { enabled: Some(false), ..CredentialChanges::default() };
    catalog.update_credential(&key(1), &disable).await.unwrap();
    assert!(administers(1).await);
    catalog.remove_credential(&key(1)).await.unwrap();
    assert!(!administers(1).await);
}

pub async fn a_key_of_a_user_allows_what_both_may(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let owned = other(2, |credential| {
        credential.user = Some(user(1, "jane").reference());
        credential.administers_service = false;
    });
    catalog.add_credential(&owned).await.unwrap();
    let found = holder(catalog, 2).await;
    assert!(found.user_may);
    assert!(found.permissions.allow(Action::ListBackups));
    assert!(!found.permissions.allow(Action::CreateBackup));
    catalog.set_grant(&user_id(1), &project(1), &BuiltInRole::Operator.into()).await.unwrap();
    assert!(holder(catalog, 2).await.permissions.allow(Action::CreateBackup));
    let disable = UserChanges { enabled: Some(false), ..UserChanges::default() };
    catalog.update_user(&user_id(1), &disable).await.unwrap();
    assert!(!holder(catalog, 2).await.user_may);
    let enable = UserChanges { enabled: Some(true), ..UserChanges::default() };
    catalog.update_user(&user_id(1), &enable).await.unwrap();
    catalog.remove_grant(&user_id(1), &project(1)).await.unwrap();
    let found = holder(catalog, 2).await;
    assert!(!found.user_may && found.permissions == Permissions::default());
}

pub async fn a_user_reads_back_and_its_name_is_taken(catalog: &impl Catalog) {
    for (n, name) in [(1, "jane"), (2, "ada@example.org")] {
        catalog.create_user(&user(n, name), &password(n)).await.unwrap();
    }
    is_taken(catalog.create_user(&user(1, "other"), &password(1)).await, "user id");
    is_taken(catalog.create_user(&user(3, "jane"), &password(3)).await, "user name");
    for key in [UserKey::Id(user_id(1)), UserKey::Name("jane".parse().unwrap())] {
        let found = catalog.find_user(&key).await.unwrap();
        assert_eq!(found, Some((user(1, "jane"), password(1))));
    }
    assert_eq!(catalog.find_user(&UserKey::Id(user_id(9))).await.unwrap(), None);
    let listed = catalog.list_users(ALL).await.unwrap();
    assert_eq!(listed.items, [user(2, "ada@example.org"), user(1, "jane")]);
    let second = catalog.list_users(Page { offset: 1, limit: 5 }).await.unwrap();
    assert_eq!((second.items.len(), second.total), (1, 2));

    let rename =
        |name: &str| UserChanges { name: Some(name.parse().unwrap()), ..UserChanges::default() };
    is_taken(catalog.update_user(&user_id(2), &rename("jane")).await, "user name");
    is_missing(catalog.update_user(&user_id(9), &rename("nobody")).await, "user");
    let changes = UserChanges {
        password: Some(password(7)),
        enabled: Some(false),
        administers_service: Some(true),
        ..rename("ada")
    };
    catalog.update_user(&user_id(2), &changes).await.unwrap();
    let changed = User { enabled: false, administers_service: true, ..user(2, "ada") };
    let found = catalog.find_user(&UserKey::Id(user_id(2))).await.unwrap();
    assert_eq!(found, Some((changed, password(7))));
}

pub async fn a_user_that_goes_takes_all_that_is_its_own(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let owned = other(2, |credential| credential.user = Some(user(1, "jane").reference()));
    catalog.add_credential(&owned).await.unwrap();
    let given = token(1, TokenScope::Project(project(1)));
    catalog.add_token(&given, &password(1), None, at(0)).await.unwrap();
    catalog.remove_user(&user_id(1)).await.unwrap();
    is_missing(catalog.remove_user(&user_id(1)).await, "user");
    assert_eq!(catalog.find_token(&given.hash).await.unwrap(), None);
    assert_eq!(catalog.find_credential(&key(2)).await.unwrap(), None);
    assert_eq!(catalog.grants_of(&user_id(1)).await.unwrap(), []);
    assert!(catalog.find_credential(&key(1)).await.unwrap().is_some());
}

pub async fn a_grant_is_given_changed_and_taken_away(catalog: &impl Catalog) {
    with_reader(catalog).await;
    open_project(catalog, 2).await;
    let admin = BuiltInRole::Admin.into();
    catalog.set_grant(&user_id(1), &project(2), &admin).await.unwrap();
    let [one, two] = &catalog.grants_of(&user_id(1)).await.unwrap()[..] else { panic!() };
    assert_eq!((&one.project, &two.project), (&named(1, "project-1"), &named(2, "project-2")));
    assert_eq!(one.permissions, BuiltInRole::Reader.permissions());
    assert_eq!((&two.role, &two.permissions), (&admin, &Permissions::everything()));
    catalog.set_grant(&user_id(1), &project(1), &admin).await.unwrap();
    assert_eq!(catalog.grants_of(&user_id(1)).await.unwrap()[0].role, admin);
    is_missing(catalog.set_grant(&user_id(9), &project(1), &admin).await, "user");
    is_missing(catalog.set_grant(&user_id(1), &project(9), &admin).await, "project");
    let nowhere = "nowhere".parse().unwrap();
    is_missing(catalog.set_grant(&user_id(1), &project(1), &nowhere).await, "role");
    catalog.remove_grant(&user_id(1), &project(1)).await.unwrap();
    is_missing(catalog.remove_grant(&user_id(1), &project(1)).await, "grant");
    assert_eq!(catalog.grants_of(&user_id(1)).await.unwrap().len(), 1);
}

pub async fn a_policy_is_what_its_role_allows(catalog: &impl Catalog) {
    with_reader(catalog).await;
    open_project(catalog, 2).await;
    let nightly = policy("nightly", &["dcs:instance:backupData", "dcs:*:list"]);
    catalog.create_policy(&nightly).await.unwrap();
    is_taken(catalog.create_policy(&nightly).await, "policy name");
    is_taken(catalog.create_policy(&policy("reader", &["*:*:*"])).await, "policy name");
    let elsewhere = AccessPolicy { project: project(9), ..nightly.clone() };
    is_missing(catalog.create_policy(&elsewhere).await, "project");
    assert_eq!(
        catalog.find_policy(&project(1), &nightly.name).await.unwrap(),
        Some(nightly.clone())
    );
    assert_eq!(catalog.find_policy(&project(2), &nightly.name).await.unwrap(), None);
    let listed = catalog.list_policies(&project(1), ALL).await.unwrap();
    assert_eq!((listed.items, listed.total), (vec![nightly.clone()], 1));

    catalog.set_grant(&user_id(1), &project(1), &nightly.name).await.unwrap();
    // A policy is one of its project alone.
    is_missing(catalog.set_grant(&user_id(1), &project(2), &nightly.name).await, "role");
    let permissions = |n: usize| async move {
        catalog.grants_of(&user_id(1)).await.unwrap()[n].permissions.clone()
    };
    assert!(permissions(0).await.allow(Action::CreateBackup));
    let fewer = patterns(&["dcs:instance:get"]);
    catalog.update_policy(&project(1), &nightly.name, &fewer, at(5)).await.unwrap();
    assert!(!permissions(0).await.allow(Action::CreateBackup));
    assert!(permissions(0).await.allow(Action::GetInstance));
    let changed = AccessPolicy { actions: fewer.clone(), updated_at: at(5), ..nightly.clone() };
    assert_eq!(catalog.find_policy(&project(1), &nightly.name).await.unwrap(), Some(changed));
    let missing = catalog.update_policy(&project(2), &nightly.name, &fewer, at(5)).await;
    is_missing(missing, "policy");
}

pub async fn a_policy_that_is_granted_stays(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let name = "nightly".parse().unwrap();
    catalog.create_policy(&policy("nightly", &["*:*:*"])).await.unwrap();
    let reader = BuiltInRole::Reader.into();
    let in_use = |outcome| assert!(matches!(outcome, Err(CatalogError::InUse("policy"))));
    catalog.set_grant(&user_id(1), &project(1), &name).await.unwrap();
    in_use(catalog.remove_policy(&project(1), &name).await);
    catalog.set_grant(&user_id(1), &project(1), &reader).await.unwrap();
    let role = |role| CredentialChanges { role: Some(role), ..CredentialChanges::default() };
    catalog.update_credential(&key(1), &role(name.clone())).await.unwrap();
    in_use(catalog.remove_policy(&project(1), &name).await);
    catalog.update_credential(&key(1), &role(reader)).await.unwrap();
    catalog.remove_policy(&project(1), &name).await.unwrap();
    is_missing(catalog.remove_policy(&project(1), &name).await, "policy");
}

pub async fn a_token_is_found_with_what_it_opens(catalog: &impl Catalog) {
    with_reader(catalog).await;
    for (n, scope) in
        [(1, TokenScope::Project(project(1))), (2, TokenScope::Domain), (3, TokenScope::Unscoped)]
    {
        let given = Token { sign_in: SignIn::Token, ..token(n, scope.clone()) };
        catalog.add_token(&given, &password(1), None, at(0)).await.unwrap();
        let found = catalog.find_token(&given.hash).await.unwrap().unwrap();
        assert_eq!((found.token, found.user), (given, user(1, "jane")));
        let permissions = found.grant.map(|grant| grant.permissions);
        let is_scoped = scope == TokenScope::Project(project(1));
        assert_eq!(permissions, is_scoped.then(|| BuiltInRole::Reader.permissions()));
    }
    assert_eq!(catalog.find_token(&TokenHash([9; 32])).await.unwrap(), None);
    // What a token opens is looked up when it is used.
    let admin = BuiltInRole::Admin.into();
    catalog.set_grant(&user_id(1), &project(1), &admin).await.unwrap();
    let found = catalog.find_token(&TokenHash([1; 32])).await.unwrap().unwrap();
    assert_eq!(found.grant.unwrap().role, admin);
}

pub async fn a_token_ends_with_what_it_was_given_for(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let scoped = || TokenScope::Project(project(1));
    let give = |n, scope, n_password| async move {
        catalog.add_token(&token(n, scope), &password(n_password), None, at(0)).await.unwrap();
    };
    let left = || async {
        let mut left = Vec::new();
        for n in 1..=9 {
            if catalog.find_token(&TokenHash([n; 32])).await.unwrap().is_some() {
                left.push(n);
            }
        }
        left
    };
    give(1, scoped(), 1).await;
    give(2, TokenScope::Unscoped, 1).await;
    give(3, scoped(), 1).await;
    assert!(catalog.revoke_token(&TokenHash([1; 32])).await.unwrap());
    assert!(!catalog.revoke_token(&TokenHash([1; 32])).await.unwrap());
    assert_eq!(left().await, [2, 3]);
    catalog.remove_grant(&user_id(1), &project(1)).await.unwrap();
    assert_eq!(left().await, [2]);
    let harmless = UserChanges { administers_service: Some(false), ..UserChanges::default() };
    catalog.update_user(&user_id(1), &harmless).await.unwrap();
    assert_eq!(left().await, [2]);
    let changed = UserChanges { password: Some(password(2)), ..UserChanges::default() };
    catalog.update_user(&user_id(1), &changed).await.unwrap();
    assert_eq!(left().await, [0; 0]);
    give(4, TokenScope::Unscoped, 2).await;
    let disable = UserChanges { enabled: Some(false), ..UserChanges::default() };
    catalog.update_user(&user_id(1), &disable).await.unwrap();
    assert_eq!(left().await, [0; 0]);
}

pub async fn tokens_that_are_over_are_forgotten_in_time(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let first = token(1, TokenScope::Unscoped);
    catalog.add_token(&first, &password(1), None, at(0)).await.unwrap();
    catalog.add_token(&token(2, TokenScope::Unscoped), &password(1), None, at(100)).await.unwrap();
    // One that is over is still told from one that never was.
    assert!(catalog.find_token(&first.hash).await.unwrap().is_some());
    catalog.add_token(&token(3, TokenScope::Unscoped), &password(1), None, at(101)).await.unwrap();
    assert_eq!(catalog.find_token(&first.hash).await.unwrap(), None);
}

pub async fn a_token_is_given_only_for_the_password_that_holds(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let given = token(1, TokenScope::Unscoped);
    is_missing(catalog.add_token(&given, &password(2), None, at(0)).await, "user");
    let disable = UserChanges { enabled: Some(false), ..UserChanges::default() };
    catalog.update_user(&user_id(1), &disable).await.unwrap();
    is_missing(catalog.add_token(&given, &password(1), None, at(0)).await, "user");
    assert_eq!(catalog.find_token(&given.hash).await.unwrap(), None);
}

pub async fn a_token_that_was_got_with_another_goes_with_it(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let [first, second, third] = [1, 2, 3].map(|n| token(n, TokenScope::Unscoped));
    let add = async |token: &Token, parent: Option<&TokenHash>| {
        catalog.add_token(token, &password(1), parent, at(0)).await
    };
    add(&first, None).await.unwrap();
    add(&second, Some(&first.hash)).await.unwrap();
    add(&third, Some(&second.hash)).await.unwrap();
    assert!(catalog.revoke_token(&first.hash).await.unwrap());
    for gone in [&second, &third] {
        assert!(catalog.find_token(&gone.hash).await.unwrap().is_none());
    }
    is_missing(add(&second, Some(&first.hash)).await, "user");
}

/// A token of which there can be many more than [`token`] tells apart.
fn numbered_token(n: u32) -> Token {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&n.to_be_bytes());
    Token { hash: TokenHash(hash), ..token(0, TokenScope::Unscoped) }
}

/// Tokens of which each is got with the one before it, as many as are given.
async fn chain_from(catalog: &impl Catalog, first: u32, attempts: u32) -> Vec<TokenHash> {
    let mut chain: Vec<TokenHash> = Vec::new();
    for n in first..first + attempts {
        let next = numbered_token(n);
        match catalog.add_token(&next, &password(1), chain.last(), at(0)).await {
            Ok(()) => chain.push(next.hash),
            Err(CatalogError::TokenChain) => {}
            Err(error) => panic!("{n}: {error:?}"),
        }
    }
    chain
}

pub async fn a_chain_of_tokens_ends_whatever_ends_it(catalog: &impl Catalog) {
    with_reader(catalog).await;
    let disable = UserChanges { enabled: Some(false), ..UserChanges::default() };
    let enable = UserChanges { enabled: Some(true), ..UserChanges::default() };
    let chain = chain_from(catalog, 0, 1100).await;
    assert_eq!(chain.len(), TOKEN_CHAIN_MAX as usize);
    // One in the middle takes along those behind it alone.
    assert!(catalog.revoke_token(&chain[8]).await.unwrap());
    assert!(catalog.find_token(&chain[7]).await.unwrap().is_some());
    assert!(catalog.find_token(&chain[15]).await.unwrap().is_none());
    assert!(catalog.revoke_token(&chain[0]).await.unwrap());
    let is_gone = async |chain: &[TokenHash]| {
        for hash in chain {
            assert_eq!(catalog.find_token(hash).await.unwrap(), None);
        }
    };
    is_gone(&chain).await;
    let disabled = chain_from(catalog, 2000, 20).await;
    catalog.update_user(&user_id(1), &disable).await.unwrap();
    is_gone(&disabled).await;
    catalog.update_user(&user_id(1), &enable).await.unwrap();
    let forgotten = chain_from(catalog, 3000, 20).await;
    catalog.add_token(&numbered_token(4000), &password(1), None, at(101)).await.unwrap();
    is_gone(&forgotten).await;
    let removed = chain_from(catalog, 5000, 20).await;
    catalog.remove_user(&user_id(1)).await.unwrap();
    is_gone(&removed).await;
}

pub async fn the_oldest_token_makes_room_for_one_more(catalog: &impl Catalog) {
    with_reader(catalog).await;
    catalog.create_user(&user(2, "john"), &password(1)).await.unwrap();
    let other = Token { user: user_id(2), ..token(9, TokenScope::Unscoped) };
    catalog.add_token(&other, &password(1), None, at(0)).await.unwrap();
    for n in 0..=TOKENS_OF_USER_MAX {
        catalog.add_token(&numbered_token(n), &password(1), None, at(0)).await.unwrap();
    }
    for (token, is_there) in [
        (numbered_token(0), false),
        (numbered_token(1), true),
        (numbered_token(TOKENS_OF_USER_MAX), true),
        (other, true),
    ] {
        let found = catalog.find_token(&token.hash).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{:?}", token.hash);
    }
    // One that was got with the oldest would go with it at once: it is not given.
    let oldest = numbered_token(1).hash;
    let last = numbered_token(TOKENS_OF_USER_MAX + 1);
    is_missing(catalog.add_token(&last, &password(1), Some(&oldest), at(0)).await, "user");
}
