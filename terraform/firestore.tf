resource "google_firestore_database" "sessions" {
  name        = "(default)"
  location_id = var.firestore_location
  type        = "FIRESTORE_NATIVE"

  delete_protection_state           = "DELETE_PROTECTION_ENABLED"
  deletion_policy                   = "ABANDON"
  point_in_time_recovery_enablement = "POINT_IN_TIME_RECOVERY_ENABLED"

  depends_on = [google_project_service.api]
}

# One file says what is indexed and what expires, for this and for whoever uses Firebase's tools.
locals {
  indexes = jsondecode(file("${path.module}/../firestore.indexes.json"))
}

resource "google_firestore_field" "override" {
  for_each = { for field in local.indexes.fieldOverrides : "${field.collectionGroup}.${field.fieldPath}" => field }

  database   = google_firestore_database.sessions.name
  collection = each.value.collectionGroup
  field      = each.value.fieldPath

  index_config {
    dynamic "indexes" {
      for_each = each.value.indexes
      content {
        order        = lookup(indexes.value, "order", null)
        array_config = lookup(indexes.value, "arrayConfig", null)
        query_scope  = indexes.value.queryScope
      }
    }
  }

  dynamic "ttl_config" {
    for_each = lookup(each.value, "ttl", false) ? [true] : []
    content {}
  }
}

resource "google_firestore_index" "composite" {
  for_each = { for index in local.indexes.indexes : jsonencode(index) => index }

  database    = google_firestore_database.sessions.name
  collection  = each.value.collectionGroup
  query_scope = each.value.queryScope

  dynamic "fields" {
    for_each = each.value.fields
    content {
      field_path   = fields.value.fieldPath
      order        = lookup(fields.value, "order", null)
      array_config = lookup(fields.value, "arrayConfig", null)
    }
  }
}

resource "google_project_iam_member" "firestore_user" {
  for_each = { for name, member in local.readers : name => member if name != "pipeline" }

  project = var.project
  role    = "roles/datastore.user"
  member  = each.value

}
