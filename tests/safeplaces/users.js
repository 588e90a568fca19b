// The table of users that each backend looks the token's subject up in. The LDAP era
// knows them by `username`, the others by `idm_id`; both are the directory's `uid` here.

const users = ['sam', 'alice', 'carol', 'nina'].map(name => ({
  username: name,
  idm_id: name,
  organization_id: 1,
}));

module.exports = where =>
  Promise.resolve(
    users.find(user => Object.entries(where).every(([key, value]) => user[key] === value)),
  );
