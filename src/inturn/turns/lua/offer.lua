-- offer: append a turn to a session's mailbox, unless its ID is known.
--
-- KEYS   1 active (zset)  2 queue (list)  3 payloads (hash)  4 session (hash)  5 done (zset)
--        6 depth (string)  7 shut (string)
-- ARGV   1 session ID  2 turn ID  3 payload  4 grace ms  5 most waiting turns
--        6 policy (enqueue, merge, interrupt, reject)  7 group, or ''  8 share  9 quiet ms (see `common`)
-- reply  { outcome, turns ahead of this one, publish? }
--        new    appended; publish? = 1 if the session needs a message: it had nothing waiting and the turn is
--               not held back, or the turn ends a wait
--        known  waits or runs already; publish? = 1 if it is next and nobody works on it: the first
--               message may never have been sent
--        done   was finished a while ago
--        full   refused; the second value is the number that wait
--        rejected  refused by its own policy, for something waits or runs; the second value as above
--        shut   refused, for too many turns wait in all; the second value is about how many
--
-- Invariants: at most once per turn ID; the list is in order of arrival; a session is in the index exactly
-- while its list is not empty. A new turn never postpones the time by which its session must be served, unless
-- it joins turns that are held back for it. What interrupts changes the running turn's flag and nothing else of
-- it, once: a replay finds the turn known.

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local session, turn = ARGV[1], ARGV[2]

if redis.call('ZSCORE', KEYS[5], turn) then
  return { 'done', 0, 0 }
end

if redis.call('HEXISTS', KEYS[3], turn) == 1 then
  local ahead = redis.call('LPOS', KEYS[2], turn)
  local held = redis.call('HMGET', KEYS[4], 'until', 'sleep')
  local idle = tonumber(held[1] or 0) <= now and tonumber(held[2] or 0) <= now
  return { 'known', ahead, (ahead == 0 and idle and quiet_until(turn) <= now) and 1 or 0 }
end

return append(
  now, session, turn, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8], ARGV[9]
)
