-- find_named: what an index names, in the index's order: sessions, or the messages of a user.
--
-- KEYS   1 index (zset whose scores are all 0)
-- ARGV   1 prefix  2 user whose messages they are, or '' for sessions  3 newest or oldest
--        4 lower and 5 upper bound, as for BYLEX  6 rows wanted
-- reply  { bound or '', { row, ... } }; with a bound there may be more beyond it: too many names led nowhere
--        for one call
--
-- Invariant: a name that leads nowhere is no row and leaves the index.

local index, user, newest = KEYS[1], ARGV[2], ARGV[3] == 'newest'
local low, high, wanted = ARGV[4], ARGV[5], tonumber(ARGV[6])
local rows, dropped = {}, 0
while #rows < wanted and dropped < 1000 do
  local names
  if newest then
    names = redis.call('ZRANGE', index, high, low, 'BYLEX', 'REV', 'LIMIT', 0, wanted - #rows)
  else
    names = redis.call('ZRANGE', index, low, high, 'BYLEX', 'LIMIT', 0, wanted - #rows)
  end
  if #names == 0 then
    return { '', rows }
  end
  for _, name in ipairs(names) do
    local row
    if user == '' then
      row = session_named(index, name)
    else
      row = message_named(user, name)
    end
    if row then
      rows[#rows + 1] = row
    else
      redis.call('ZREM', index, name)
      dropped = dropped + 1
    end
  end
  local bound = '(' .. names[#names]
  if newest then
    high = bound
  else
    low = bound
  end
end
return { #rows < wanted and (newest and high or low) or '', rows }
