"""What moderation refuses: a policy, a hash list or a classifier that cannot be relied on."""

from __future__ import annotations

from indexer.errors.base import CrosslensError


class ModerationError(CrosslensError):
    """Moderation cannot be done as asked; what is in force stays in force."""

    code = "moderation"
    status = 400
    default_remedy = "The policy in force stays. Correct what the message names, and try again."


class PolicyInvalid(ModerationError):
    """A policy with a mistake. `mistakes` in the details has all of them, each with its place and its remedy."""

    code = "policy_invalid"
    default_remedy = "Correct the lines that are named and send the policy again; the one in force stays."


class PolicyNotFound(ModerationError):
    """No starting policy of that name."""

    code = "policy_not_found"
    status = 404
    default_remedy = "Use one of those that the message lists."


class OriginalWithheld(ModerationError):
    """An original that the policy does not let out as it is."""

    code = "original_withheld"
    status = 403
    default_remedy = "Its thumbnail is there, blurred. A key with the role 'moderate' gets it with ?view=moderator."


class HashListInvalid(ModerationError):
    """A list of hashes that does not parse."""

    code = "hash_list_invalid"
    default_remedy = "Nothing was taken over. Give CSV, one hash a line, or ThreatExchange JSON."


class HashListNotFound(ModerationError):
    """A policy names a hash list that is not here: nothing can be judged by it."""

    code = "hash_list_not_found"
    status = 404
    default_remedy = "Import the list under that name, or take its detector out of the policy."


class ClassifierNotFound(ModerationError):
    """A policy names an image classifier that is not here."""

    code = "classifier_not_found"
    status = 404
    default_remedy = "Put its folder, with manifest.json and the graph, among the classifiers, or change the policy."


class ReviewConflict(ModerationError):
    """Somebody else decided on an item meanwhile. `conflicts` in the details has the ids; nothing was decided."""

    code = "review_conflict"
    status = 409
    default_remedy = "Look at the items again, and decide with the numbers that they have now."


class TrailEntryNotFound(ModerationError):
    """The audit trail has no entry of that number."""

    code = "trail_entry_not_found"
    status = 404
    default_remedy = "Take the number from the trail's export, or from the answer to the decision."


class PolicyChanged(ModerationError):
    """The policy in force is not the one that If-Match names; nothing was changed."""

    code = "policy_changed"
    status = 412
    default_remedy = "Get the policy in force, make your change to that one, and send it with its number in If-Match."


class QueryBlocked(ModerationError):
    """A search by what the policy does not show. `categories` in the details has their names."""

    code = "query_blocked"
    status = 403
    default_remedy = "Search for something else."
