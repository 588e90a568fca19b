// The service of the LDAP era: Express with passport's strategy for bearer tokens.

const express = require('express');
const passport = require('passport');
const { ExtractJwt, Strategy } = require('passport-jwt');
const findUser = require('./users');
const routes = require('./routes');

const options = {
  jwtFromRequest: ExtractJwt.fromAuthHeaderAsBearerToken(),
  secretOrKey: process.env.JWT_SECRET,
};
passport.use(
  'jwt',
  new Strategy(options, (claims, done) =>
    findUser({ username: claims.sub }).then(user => done(null, user || false), done),
  ),
);

const app = express();
app.use(passport.initialize());

// Says whom the strategy recognised.
const answer = (req, res) => {
  req.record.handled = { user: req.user ? req.user.username : null };
  res.status(200).json(req.record.handled);
};

for (const [method, path, roles] of routes.ldap) {
  const steps = roles === null ? [] : [passport.authenticate('jwt', { session: false })];
  app[method](path, ...steps, answer);
}

module.exports = app;
